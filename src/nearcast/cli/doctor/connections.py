"""Connections: the control plane with its database and object store, the clock beside its own, the plan, the peers."""

import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx
import msgspec

from nearcast.agent.layout import Layout
from nearcast.cli.doctor.finding import Finding, Ground
from nearcast.cli.doctor.processes import agent_pid
from nearcast.resources.status import NodeStatus

TIMEOUT_S: Final = 5.0
CLOCK_WARNING_S: Final = 5.0
CLOCK_PROBLEM_S: Final = 60.0
STATUS_OLD_S: Final = 30.0


class _Member(msgspec.Struct):
    control: str = ""
    repository: str = ""


def control(ground: Ground) -> Iterator[Finding]:
    """Every control plane that something here depends on answers, can take changes, and agrees on the time."""
    for url, authority in sorted(_control_planes(ground).items()):
        yield from _asked(url, authority)


def _control_planes(ground: Ground) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for layout in ground.nodes.values():
        if layout.node.exists():
            url = msgspec.json.decode(layout.node.read_bytes(), type=_Member).control
            if url:
                found[url] = layout.authority
    if ground.fleet is not None and ground.control is not None:
        found[ground.fleet.control_url] = ground.control / "ca.pem"
    return found


def _asked(url: str, authority: Path) -> Iterator[Finding]:
    try:
        context = ssl.create_default_context(cadata=authority.read_text())
    except (OSError, ssl.SSLError) as error:
        yield Finding("control", "problem", f"its authority cannot be read: {error}", f"restore {authority}", url)
        return
    with httpx.Client(verify=context, timeout=TIMEOUT_S, trust_env=False) as client:
        try:
            answer = client.get(f"{url}/readyz")
        except httpx.HTTPError as error:
            advice = "start it (nearcast up, systemctl start nearcast-control), or mend the network; sites serve on"
            yield Finding("control", "problem", f"does not answer: {type(error).__name__} {error}", advice, url)
            return
    yield _clock(url, answer)
    if answer.status_code == 200:
        yield Finding("control", "ok", "answers, and its database does", subject=url)
    else:
        advice = "look at its log: database or object store cannot be reached; sites serve on"
        yield Finding("control", "problem", f"answers {answer.status_code}: {answer.text[:200]}", advice, url)


def _clock(url: str, answer: httpx.Response) -> Finding:
    if "date" not in answer.headers:
        return Finding("clock", "warning", "the control plane tells no time", "compare the clocks by hand", url)
    ahead_s = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
    found = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the control plane's"
    if abs(ahead_s) < CLOCK_WARNING_S:
        return Finding("clock", "ok", "agrees with the control plane's", subject=url)
    advice = "set both by NTP (timedatectl set-ntp true): certificates and metadata end by the clock"
    return Finding("clock", "problem" if abs(ahead_s) >= CLOCK_PROBLEM_S else "warning", found, advice, url)


def plan(ground: Ground) -> Iterator[Finding]:
    """What each node said last: its plan, and what is wrong there."""
    for name, layout in ground.nodes.items():
        status = _status(layout)
        if status is None:
            if layout.node.exists():
                yield Finding("plan", "warning", "the node has said nothing yet", "start its agent", name)
            continue
        age_s = max(0.0, ground.now.timestamp() - layout.status.stat().st_mtime)
        if agent_pid(layout) is not None and age_s > STATUS_OLD_S:
            advice = "its agent hangs or its disk is full: see nearcast logs --component agent"
            yield Finding("plan", "problem", f"the last status is {age_s:.0f} s old", advice, name)
        elif status.plan_version == 0:
            yield Finding("plan", "warning", "it has no plan yet", "look at `control`, and at nearcast logs", name)
        elif status.routed_version < status.plan_version:
            found = f"plan {status.plan_version}, but routes of {status.routed_version}: {status.gateway.message}"
            yield Finding("plan", "warning", found, "it is on its way, or the gateway refuses it: nearcast logs", name)
        else:
            yield Finding("plan", "ok", f"plan {status.plan_version} in force, told {age_s:.0f} s ago", subject=name)
        for item in status.conditions:
            if not item.status:
                advice = "see how-to/find-out-what-is-wrong in the documentation"
                yield Finding("condition", "problem", f"{item.type}: {item.reason}: {item.message}", advice, name)
        for model in status.models:
            if model.state == "failed":
                found = f"{model.model}@{model.version}: {model.reason}: {model.message}"
                yield Finding("model", "problem", found, "push a release that works, or mend what it names", name)


def peers(ground: Ground) -> Iterator[Finding]:
    """The peers of each node, as it measured them last."""
    for name, layout in ground.nodes.items():
        status = _status(layout)
        if status is None or not status.peers:
            continue
        away = [peer for peer in status.peers if not peer.reachable]
        if away:
            found = "; ".join(f"{peer.site}: {peer.message or 'no answer'}" for peer in away)
            advice = "requests go elsewhere meanwhile; look at that site, and at the network between"
            yield Finding("peers", "warning", found, advice, name)
        else:
            far = max(peer.round_trip_s for peer in status.peers)
            yield Finding(
                "peers", "ok", f"{len(status.peers)} answer, the farthest in {far * 1e3:.0f} ms", subject=name
            )


def repository(ground: Ground) -> Iterator[Finding]:
    """A repository in a folder is there; one behind the control plane is asked by `control`."""
    for name, layout in ground.nodes.items():
        if not layout.node.exists():
            continue
        url = msgspec.json.decode(layout.node.read_bytes(), type=_Member).repository
        if url.startswith("file:"):
            folder = Path(url.removeprefix("file://"))
            if folder.is_dir():
                yield Finding("repository", "ok", str(folder), subject=name)
            else:
                yield Finding("repository", "problem", f"there is no {folder}", "mount it, or restore it", name)


def _status(layout: Layout) -> NodeStatus | None:
    if not layout.status.exists():
        return None
    return msgspec.json.decode(layout.status.read_bytes(), type=NodeStatus)
