"""Trust: certificates, keys and TUF metadata on this machine, and how long they are still honoured."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nearcast.agent.layout import Layout
from nearcast.cli.doctor.finding import Finding, Ground, Verdict

SOON: Final = timedelta(days=3)
JOIN: Final = "join again: nearcast join-token SITE, then nearcast agent --join-file TOKEN on an empty --data-dir"
RENEW: Final = "the agent renews it as long as it reaches the control plane: look at `control` and `Certificate`"


def certificates(ground: Ground) -> Iterator[Finding]:
    """The certificate of each node belongs to its key, and is honoured now."""
    for name, layout in ground.nodes.items():
        if layout.node.exists() or layout.certificate.exists():
            yield _certificate(name, layout, ground.now)
        else:
            yield Finding("certificate", "warning", "this node has not joined a fleet yet", JOIN, name)
    if ground.control is not None:
        yield _leaf("control plane", ground.control / "ca.pem", ground.now, "restore the keys from a backup")


def _certificate(name: str, layout: Layout, now: datetime) -> Finding:
    for path in (layout.key, layout.certificate, layout.authority):
        if not path.exists():
            return Finding("certificate", "problem", f"{path} is missing", JOIN, name)
    try:
        key = load_pem_private_key(layout.key.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(layout.certificate.read_bytes())
    except (ValueError, TypeError) as error:
        return Finding("certificate", "problem", f"key or certificate cannot be read: {error}", JOIN, name)
    if key.public_key() != certificate.public_key():
        return Finding("certificate", "problem", "the certificate is not for the key beside it", JOIN, name)
    return _leaf(name, layout.certificate, now, RENEW)


def _leaf(name: str, path: Path, now: datetime, advice: str) -> Finding:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        found = f"honoured from {begins:%Y-%m-%d %H:%M} on, and this clock says {now:%Y-%m-%d %H:%M}"
        return Finding("certificate", "problem", found, "set the clock of this machine right (timedatectl)", name)
    if now >= ends:
        return Finding("certificate", "problem", f"ended on {ends:%Y-%m-%d %H:%M} UTC", advice, name)
    verdict: Verdict = "warning" if ends - now < SOON else "ok"
    found = f"until {ends:%Y-%m-%d %H:%M} UTC, {_days(ends - now)}"
    return Finding("certificate", verdict, found, "" if verdict == "ok" else advice, name)


def metadata(ground: Ground) -> Iterator[Finding]:
    """The roots that a node pinned are here, and the metadata that it verified last can be read and has not ended."""
    for name, layout in ground.nodes.items():
        if not layout.node.exists():
            continue
        lost = [path for path in (layout.releases_root, layout.plans_root) if not path.exists()]
        if lost:
            yield Finding("trust", "problem", f"{', '.join(map(str, lost))} is missing", JOIN, name)
            continue
        ended, standing = [], []
        for path in sorted(layout.trust.rglob("*.json")):
            ends = expiry_of(path)
            if ends is None:
                continue
            standing.append(ends)
            if ends <= ground.now:
                ended.append(f"{path.relative_to(layout.trust)} on {ends:%Y-%m-%d %H:%M}")
        if ended:
            advice = (
                "nothing new is installed until it is signed anew; what serves goes on. Look at `control` and clock"
            )
            yield Finding("trust", "warning", f"ended: {'; '.join(ended[:3])}", advice, name)
        else:
            until = f", honoured until {min(standing):%Y-%m-%d %H:%M} UTC" if standing else ""
            yield Finding("trust", "ok", f"pinned roots are here{until}", subject=name)


def expiry_of(path: Path) -> datetime | None:
    """When the TUF metadata in ``path`` end; None where it is no such file, or a root, which newer ones replace."""
    document = json.loads(path.read_bytes())
    signed = document.get("signed") if isinstance(document, dict) else None
    if not isinstance(signed, dict) or "expires" not in signed or signed.get("_type") == "root":
        return None
    return datetime.fromisoformat(str(signed["expires"])).astimezone(UTC)


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span.days else f"{span.seconds // 3600} hours"
