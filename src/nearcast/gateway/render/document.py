"""The rendered configuration as documents: xDS files with content hashes for versions, and their flattened form.

Envoy's ``--mode validate`` does not read dynamic files, so :meth:`GatewayFiles.flattened` puts the same resources into
one static bootstrap. The files that Envoy reads and what is validated are made from the same values.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from nearcast.resources.revision import canonical_json, digest_of, revision_of
from nearcast.resources.unreadable import UNREADABLE

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Message: TypeAlias = dict[str, Json]
"""A protobuf message in its JSON form."""

TYPE_URL: Final = "type.googleapis.com/"
CLUSTER_TYPE: Final = f"{TYPE_URL}envoy.config.cluster.v3.Cluster"
LISTENER_TYPE: Final = f"{TYPE_URL}envoy.config.listener.v3.Listener"
ROUTES_TYPE: Final = f"{TYPE_URL}envoy.config.route.v3.RouteConfiguration"

BOOTSTRAP_FILE: Final = "bootstrap.json"
CLUSTERS_FILE: Final = "cds.json"
LISTENERS_FILE: Final = "lds.json"
IDENTITY_FILE: Final = "sds_identity.json"
AUTHORITY_FILE: Final = "sds_authority.json"
PUBLIC_FILE: Final = "sds_public.json"
ROUTE_NAMES: Final = ("public", "peer", "probe")

_WEIGHT: Final = re.compile(rb'"weight":\d+')
_PATIENCE: Final = re.compile(rb'"per_try_timeout":"\d+s"')
_LONGEST: Final = re.compile(rb'"key":"x-nearcast-longest-wait","value":"[^"\\]*"')
"""Inside of strings quotes are escaped, so nothing but the fields matches."""


def routes_file(name: str) -> str:
    """File of the route configuration ``name``."""
    return f"rds_{name}.json"


class _Response(msgspec.Struct):
    version_info: str
    resources: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Document:
    """One xDS file: resources of one type, in order.

    Attributes:
        version: content hash of the resources, made once: the ``version_info`` by which acceptance is recognised.
    """

    type_url: str
    resources: tuple[Message, ...]
    version: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", revision_of([self.type_url, self.resources]))

    def encode(self) -> bytes:
        """The bytes of the file: a DiscoveryResponse as JSON."""
        return b'{"resources":%b,"version_info":%b}' % (self.encode_unversioned(), canonical_json(self.version))

    def encode_unversioned(self) -> bytes:
        """The resources alone, as JSON."""
        return canonical_json([{"@type": self.type_url, **resource} for resource in self.resources])

    @classmethod
    def decode(cls, data: bytes) -> "Document | None":
        """The document in the bytes of a file, or None where they are not one that :meth:`encode` wrote."""
        try:
            response = msgspec.json.decode(data, type=_Response)
        except UNREADABLE:
            return None
        types = {str(resource.get("@type", "")) for resource in response.resources}
        if len(types) != 1:
            return None
        plain = ({key: value for key, value in resource.items() if key != "@type"} for resource in response.resources)
        document = cls(types.pop(), tuple(plain))
        return document if document.version == response.version_info else None

    def joined(self, others: Iterable[Message]) -> "Document":
        """This document plus those of ``others`` whose names it does not have."""
        own = {resource["name"] for resource in self.resources}
        return Document(self.type_url, (*self.resources, *(item for item in others if item["name"] not in own)))


@dataclass(frozen=True, slots=True)
class GatewayFiles:
    """The whole configuration of one Envoy.

    Attributes:
        bootstrap: the static part: a change of it needs another Envoy process.
        clusters: every place, and every order of places.
        listeners: public, peer and probe listener; they change with emulated round trips and addresses only.
        routes: route configurations by name (:data:`ROUTE_NAMES`).
    """

    bootstrap: Message
    clusters: Document
    listeners: Document
    routes: Mapping[str, Document]

    @property
    def version(self) -> str:
        """Content hash of the whole configuration."""
        routes = {name: document.version for name, document in self.routes.items()}
        return revision_of([self.bootstrap, self.clusters.version, self.listeners.version, routes])

    @property
    def shape(self) -> str:
        """Content hash of everything but the weights of shares and the patience with places, which change with what is
        measured: equal shapes are equally valid to Envoy."""
        documents = (self.clusters, self.listeners, *(self.routes[name] for name in sorted(self.routes)))
        parts = [canonical_json(self.bootstrap), *(document.encode_unversioned() for document in documents)]
        plain = (
            _LONGEST.sub(b'"key":""', _PATIENCE.sub(b'"per_try_timeout":""', _WEIGHT.sub(b'"weight":0', part)))
            for part in parts
        )
        return digest_of(b"\n".join(plain))

    def flattened(self) -> Message:
        """One static bootstrap with the same resources, for ``envoy --mode validate``."""
        bootstrap = {key: value for key, value in self.bootstrap.items() if key != "dynamic_resources"}
        return {
            **bootstrap,
            "static_resources": {
                "clusters": list(self.clusters.resources),
                "listeners": [self._inlined(listener) for listener in self.listeners.resources],
            },
        }

    def _inlined(self, value: Json) -> Json:
        """``value`` with every ``rds`` replaced by the route configuration that it names."""
        if isinstance(value, list):
            return [self._inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        plain = {key: self._inlined(item) for key, item in value.items() if key != "rds"}
        rds = value.get("rds")
        if isinstance(rds, dict):
            (plain["route_config"],) = self.routes[str(rds["route_config_name"])].resources
        return plain
