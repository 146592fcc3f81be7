"""Certificates as Envoy secrets (SDS): certificate and key in one file, so that one rename rotates both.

The files hold a private key; whoever writes them uses mode 0600 (`gateway.apply` does).
"""

from dataclasses import dataclass, field
from typing import Final

from nearcast.gateway.render.document import (
    AUTHORITY_FILE,
    IDENTITY_FILE,
    PUBLIC_FILE,
    TYPE_URL,
    Document,
    Message,
)

SECRET_TYPE: Final = f"{TYPE_URL}envoy.extensions.transport_sockets.tls.v3.Secret"
IDENTITY: Final = "identity"
AUTHORITY: Final = "authority"
PUBLIC: Final = "public"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the node is towards its peers, as PEM: its certificate chain, its private key, the fleet's authority."""

    certificate_pem: str
    key_pem: str = field(repr=False)
    authority_pem: str


@dataclass(frozen=True, slots=True)
class PublicCertificate:
    """What the gateway shows to clients, as PEM: a certificate chain and its private key."""

    certificate_pem: str
    key_pem: str = field(repr=False)


def identity_secret(identity: Identity) -> Document:
    """The secret with the node's certificate and key."""
    return _certificate(IDENTITY, identity.certificate_pem, identity.key_pem)


def public_secret(certificate: PublicCertificate) -> Document:
    """The secret with the certificate and key for clients."""
    return _certificate(PUBLIC, certificate.certificate_pem, certificate.key_pem)


def _certificate(name: str, certificate_pem: str, key_pem: str) -> Document:
    secret: Message = {
        "name": name,
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate_pem},
            "private_key": {"inline_string": key_pem},
        },
    }
    return Document(SECRET_TYPE, (secret,))


def authority_secret(identity: Identity) -> Document:
    """The secret with the authority that peers' certificates must come from."""
    secret: Message = {
        "name": AUTHORITY,
        "validation_context": {"trusted_ca": {"inline_string": identity.authority_pem}},
    }
    return Document(SECRET_TYPE, (secret,))


def identity_reference(envoy_dir: str) -> Message:
    """How a TLS context names the identity secret."""
    return _reference(IDENTITY, f"{envoy_dir}/{IDENTITY_FILE}")


def authority_reference(envoy_dir: str) -> Message:
    """How a TLS context names the authority secret."""
    return _reference(AUTHORITY, f"{envoy_dir}/{AUTHORITY_FILE}")


def public_reference(envoy_dir: str) -> Message:
    """How a TLS context names the secret for clients."""
    return _reference(PUBLIC, f"{envoy_dir}/{PUBLIC_FILE}")


def _reference(name: str, path: str) -> Message:
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": path}}}
