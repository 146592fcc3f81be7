"""The grammar of names: short enough for paths, DNS labels, headers and metrics, without escaping anywhere."""

import ipaddress
import re
from typing import Final

NAME_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$"
SITE_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
VERSION_PATTERN: Final = r"^[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?$"
DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"

NAME_RULE: Final = "1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
SITE_RULE: Final = "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit (it becomes a DNS label)"
VERSION_RULE: Final = "1 to 64 of letters, digits, '.', '_', '+' and '-', beginning and ending with a letter or digit"

_name = re.compile(NAME_PATTERN)
_port = re.compile(r"[1-9][0-9]{0,4}")
_site = re.compile(SITE_PATTERN)
_version = re.compile(VERSION_PATTERN)


def is_name(text: str) -> bool:
    """Whether ``text`` may name a model, a deployment or a policy (:data:`NAME_RULE`)."""
    return _name.fullmatch(text) is not None


def is_site_name(text: str) -> bool:
    """Whether ``text`` may name a site or a node (:data:`SITE_RULE`)."""
    return _site.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether ``text`` may be the version of a model (:data:`VERSION_RULE`)."""
    return _version.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Whether ``text`` is ``IPv4:port`` or ``[IPv6]:port``: what a gateway connects to without asking a name server."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        found = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return False
    return bracketed == (found.version == 6) and _port.fullmatch(port) is not None and int(port) <= 65535
