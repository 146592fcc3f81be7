"""Desired state and route table of one node -> the files of its Envoy. Pure: the same inputs give the same bytes.

Decides: which clusters, listeners and routes exist, and every Envoy setting (`shared reasons: docs/adr/002, 003`).
Applies residency again, so that a plan or a route table that names a forbidden place changes nothing.
Does not decide shares and orders (`planning.routes`), and starts nothing (`gateway.apply`).
"""

from nearcast.gateway.render.document import GatewayFiles
from nearcast.gateway.render.identity import (
    Identity,
    PublicCertificate,
    authority_secret,
    identity_secret,
    public_secret,
)
from nearcast.gateway.render.inputs import (
    HEAP_BYTES,
    AccessLog,
    Collector,
    GatewayInputs,
    Listen,
    LocalModel,
    Telemetry,
)
from nearcast.gateway.render.whole import render

__all__ = [
    "HEAP_BYTES",
    "AccessLog",
    "Collector",
    "GatewayFiles",
    "GatewayInputs",
    "Identity",
    "Listen",
    "LocalModel",
    "PublicCertificate",
    "Telemetry",
    "authority_secret",
    "identity_secret",
    "public_secret",
    "render",
]
