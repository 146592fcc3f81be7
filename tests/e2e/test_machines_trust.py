"""Certificates that are renewed under load, and a key that was stolen: between hosts of their own.

Certificates live for 40 seconds here, so both sides renew several times while a load runs through them.
"""

import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from cryptography import x509

from e2e.attacker import Attacker
from e2e.fleet_of_hosts import PEER, HostFleet, Machine, enter, fleet_of_hosts
from e2e.local_fleet import eventually, resource
from e2e.networks import Host
from e2e.tiny_models import adder
from e2e.traffic import load
from nearcast.agent.layout import Layout, layout_of
from nearcast.gateway.admin import Admin

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

CUT_WITHIN_S = 60
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFleet]:
    with fleet_of_hosts(tmp_path_factory.mktemp("trust"), "--certificate-lifetime", "40s") as made:
        made.apply(*(resource("Site", name, {"country": "PT"}) for name in ("lisbon", "madrid")))
        made.push("adder", "1", adder(made.folder / "models", 1.0))
        made.join("lisbon", "l1")
        made.join("madrid", "m1")
        made.join("madrid", "m2")
        eventually(lambda: [node["phase"] for node in made.nodes().values()] == ["Ready"] * 3, "three nodes")
        made.deploy("adder", "1", "lisbon")
        yield made


def serial(machine: Machine) -> int:
    """Of the certificate on the machine's disk."""
    return x509.load_pem_x509_certificate(layout_of(machine.data_dir).certificate.read_bytes()).serial_number


def at(host: Host, work: Callable[[], Result]) -> Result:
    """What ``work`` gives, or raises, done by a thread on ``host``."""

    def there() -> Result:
        enter(host)()
        return work()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(there).result(60)


def connections(machine: Machine, site: str) -> dict[str, str]:
    """What the gateway counts of its connections to ``site``: made, and broken while a request was on them."""
    admin = Admin(layout_of(machine.data_dir).run_dir / "envoy.admin")
    found = admin.stats("upstream_cx_(total|destroy_with_active_rq)$")
    return {name.rpartition(".")[2]: value for name, value in found.items() if name.startswith(f"cluster.site_{site}.")}


def certificate_shown_by(machine: Machine, identity: Layout) -> int:
    """The serial number of the certificate on a new connection to the machine's peer listener."""
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.check_hostname = False
    context.load_cert_chain(identity.certificate, identity.key)
    address = (machine.host.address, PEER)
    with socket.create_connection(address, 10) as raw, context.wrap_socket(raw) as made:
        der = made.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_renewals_break_no_connection(fleet: HostFleet) -> None:
    lisbon, madrid = fleet.machines["lisbon/l1"], fleet.machines["madrid/m1"]
    with load(madrid.gateway, "adder", enter=enter(madrid.host)) as running:
        eventually(lambda: running.outcome.total > 50, "a load")
        before = connections(madrid, "lisbon")
        for _ in range(2):
            first = serial(lisbon), serial(madrid)
            eventually(
                lambda first=first: serial(lisbon) != first[0] and serial(madrid) != first[1], "renewed", timeout_s=60
            )
        goal = running.outcome.total + 50
        eventually(lambda: running.outcome.total > goal, "answers after it")
        after = connections(madrid, "lisbon")
    assert running.outcome.failures == []
    assert before, "the gateway counts its connections"
    assert before == after, "the connections that stood went on"

    own = layout_of(madrid.data_dir)
    eventually(
        lambda: at(madrid.host, lambda: certificate_shown_by(lisbon, own)) == serial(lisbon),
        "the new certificate on new connections",
    )


def is_refused(attacker: Attacker) -> bool:
    """Whether his request is refused, or his connection gone already."""
    try:
        return attacker.ask("/v2/models/adder", "adder") == 403
    except (OSError, EOFError):
        return True


def is_closed_to(stolen: Path, machine: Machine) -> bool:
    """Whether a new connection ends before it is answered."""
    try:
        with Attacker(stolen, (machine.host.address, PEER)) as again:
            again.ask("/-/load", "")
    except (OSError, EOFError):
        return True
    return False


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_a_revoked_node_is_refused_at_once_and_cut_within_a_minute(
    fleet: HostFleet, tmp_path: Path, stack: ExitStack
) -> None:
    """The attacker has the node's whole identity, and a connection that he does not give up."""
    lisbon, neighbour = fleet.machines["lisbon/l1"], fleet.machines["madrid/m1"]
    stolen = tmp_path / "stolen"
    shutil.copytree(fleet.machines["madrid/m2"].data_dir / "identity", stolen / "identity")
    attacker = stack.enter_context(at(neighbour.host, lambda: Attacker(stolen, (lisbon.host.address, PEER))))
    assert attacker.ask("/v2/models/adder", "adder") == 200
    with load(neighbour.gateway, "adder", enter=enter(neighbour.host)) as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        began = time.monotonic()
        fleet.run("revoke", "madrid/m2")
        eventually(lambda: is_refused(attacker), "a refusal", timeout_s=30)
        refused_s = time.monotonic() - began
        attacker.closed_after_s(CUT_WITHIN_S - refused_s)
        eventually(lambda: at(neighbour.host, lambda: is_closed_to(stolen, lisbon)), "a closed door")
        goal = running.outcome.total + 20
        eventually(lambda: running.outcome.total > goal, "answers for the neighbour")
    assert running.outcome.failures == [], "its neighbour at the same site lost nothing"
    credential = (stolen / "identity" / "credential").read_text().strip()
    url = f"https://{fleet.control.address}:7643/v1/nodes/self/certificate"
    answer = at(
        fleet.control,
        lambda: httpx.post(
            url,
            headers={"authorization": f"Bearer {credential}"},
            json={"csr_pem": ""},
            verify=ssl.create_default_context(cafile=str(stolen / "identity" / "ca.pem")),
        ),
    )
    assert answer.status_code == 401
