"""Documents: versions by content, joining, reading back, and the flattened form."""

import dataclasses
import json

from nearcast.gateway.render import GatewayFiles, Identity, authority_secret, identity_secret
from nearcast.gateway.render.document import CLUSTER_TYPE, LISTENER_TYPE, ROUTES_TYPE, Document


def document(*names: str, **fields: object) -> Document:
    return Document(CLUSTER_TYPE, tuple({"name": name, **fields} for name in names))


def files(weight: int = 1, port: int = 1, patience: str | None = None) -> GatewayFiles:
    listener = {"name": "public", "port": port, "chains": [{"rds": {"route_config_name": "public"}, "kept": 1}]}
    route = {"name": "public", "clusters": [{"name": "a", "weight": weight}]}
    if patience is not None:
        route["per_try_timeout"] = patience
    return GatewayFiles(
        bootstrap={"node": {"id": "n"}, "dynamic_resources": {"cds_config": {}}},
        clusters=document("a"),
        listeners=Document(LISTENER_TYPE, (listener,)),
        routes={"public": Document(ROUTES_TYPE, (route,))},
    )


def test_versions_follow_content():
    assert document("a").version == document("a").version
    assert len({document("a").version, document("b").version, document("a", x=1).version}) == 3
    assert json.loads(document("a").encode())["version_info"] == document("a").version


def test_what_is_written_can_be_read_back_and_nothing_else():
    whole = document("a", timeout="1s", weight=3)
    assert Document.decode(whole.encode()) == whole
    for broken in (
        b"",
        b"{}",
        whole.encode()[:-1],
        whole.encode().replace(b"1s", b"2s"),
        b'{"version_info":"x","resources":[]}',
    ):
        assert Document.decode(broken) is None


def test_joining_keeps_what_is_new_and_adds_what_is_missing():
    joined = document("a", version=2).joined(document("a", "old", version=1).resources)
    assert [(item["name"], item["version"]) for item in joined.resources] == [("a", 2), ("old", 1)]


def test_flattened_holds_the_same_resources_in_one_static_bootstrap():
    flat = files().flattened()
    assert set(flat) == {"node", "static_resources"}
    assert flat["static_resources"] == {
        "clusters": [{"name": "a"}],
        "listeners": [
            {
                "name": "public",
                "port": 1,
                "chains": [{"kept": 1, "route_config": {"name": "public", "clusters": [{"name": "a", "weight": 1}]}}],
            }
        ],
    }


def test_shapes_are_blind_for_weights_and_for_nothing_else():
    assert files(weight=1).shape == files(weight=2).shape
    assert files(weight=1).version != files(weight=2).version
    assert files(patience="15s").shape == files(patience="120s").shape
    assert files(patience="15s").version != files(patience="120s").version
    assert files(port=1).shape != files(port=2).shape
    renamed = dataclasses.replace(files(), bootstrap={"node": {"id": "other"}})
    assert renamed.version != files().version


def test_identity_and_authority_are_separate_secrets():
    identity = Identity(certificate_pem="CERT", key_pem="KEY", authority_pem="CA")
    assert "KEY" not in repr(identity)
    assert b"KEY" in identity_secret(identity).encode()
    assert b"KEY" not in authority_secret(identity).encode()
    assert b"CA" in authority_secret(identity).encode()
