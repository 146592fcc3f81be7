"""The steps between running processes and a fleet that answers: authority, releases, sites, tokens, ready gateways.

Every step is safe to repeat. Nothing here is told to a process: files are written, and the supervisor looks at them.
"""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nearcast.agent.layout import layout_of
from nearcast.cli.children import has_joined
from nearcast.cli.connect import local_target, transport_of
from nearcast.cli.fleet import FleetFile, LocalPaths, node_name
from nearcast.cli.gateway import gateway_answers
from nearcast.cli.progress import Ticker
from nearcast.cli.releaser import begin_releases
from nearcast.cli.session import Session
from nearcast.cli.tail import last_lines
from nearcast.client import ControlClient
from nearcast.durable import write_whole
from nearcast.errors import NotFound, Unavailable

PAUSE_S = 0.1
TOKEN_LIFE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Starter:
    """One run of ``up``. ``supervisor`` is None where one ran already; ``deadline`` is on the monotonic clock."""

    session: Session
    paths: LocalPaths
    fleet: FleetFile
    supervisor: "subprocess.Popen[bytes] | None"
    deadline: float

    def start(self, ticker: Ticker) -> bool:
        """Bring the fleet to the point where every gateway answers. Gives whether it was there from the start.

        Raises:
            Unavailable: the time was up, or a process does not come up; the message says which, and its last words.
        """
        with self._control(ticker) as client:
            if self._lacking(client) == {} and not self.fleet.pending:
                return True
            ticker.step(f"control plane answers at {self.fleet.control_url}")
            self._releases(client, ticker)
            self._sites(client, ticker)
            self._tokens(client, ticker)
            self._await_gateways(client, ticker)
        return False

    def _control(self, ticker: Ticker) -> ControlClient:
        """A client of the control plane, once it says that it is ready."""
        while True:
            try:
                target = local_target(self.session)
                client = ControlClient(target, transport=transport_of(target))
                if client.is_ready():
                    return client
                client.close()
            except NotFound:
                pass  # its token and authority are written at its first start
            ticker.tell("the control plane comes up")
            self._pause("the control plane did not come up", self.paths.control_log)

    def _releases(self, client: ControlClient, ticker: Ticker) -> None:
        if begin_releases(client, self.paths.releaser):
            ticker.step(f"releases are signed by the key in {self.paths.releaser}")

    def _sites(self, client: ControlClient, ticker: Ticker) -> None:
        if not self.fleet.pending:
            return
        results = client.apply(list(self.fleet.pending))
        self.paths.write_fleet(msgspec.structs.replace(self.fleet, pending=()))
        changed = [result.name for result in results if result.action != "unchanged"]
        ticker.step(f"sites: {', '.join(changed)}" if changed else "sites are as written")

    def _tokens(self, client: ControlClient, ticker: Ticker) -> None:
        """Leave a join token for the node of each site that is no member yet."""
        self._replace_lost(client, ticker)
        for site in self.fleet.sites:
            if has_joined(self.paths, site):
                self.paths.join_token(site).unlink(missing_ok=True)
                continue
            token = client.join_token(site, ttl_s=TOKEN_LIFE_S)
            self.paths.site(site).mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self.paths.join_token(site), token.encode("ascii"), mode=0o600)
            ticker.step(f"the node of {site} may join")

    def _replace_lost(self, client: ControlClient, ticker: Ticker) -> None:
        """Where the key of a member is not here any more, count a new node, and shut the old one out."""
        members = {(str(node["site"]), str(node["name"])) for node in client.nodes()}
        lost = {
            site: node_name(self.fleet, site)
            for site in self.fleet.sites
            if (site, node_name(self.fleet, site)) in members and not layout_of(self.paths.site(site)).key.exists()
        }
        if not lost:
            return
        sites = {
            site: msgspec.structs.replace(own, node=own.node + 1) if site in lost else own
            for site, own in self.fleet.sites.items()
        }
        self.paths.write_fleet(msgspec.structs.replace(self.fleet, pending=(), sites=sites))
        for site, node in lost.items():
            client.revoke(site, node)
            ticker.step(f"{site}: the key of {node} is gone; a new node takes its place")

    def _await_gateways(self, client: ControlClient, ticker: Ticker) -> None:
        while lacking := self._lacking(client):
            ticker.tell(_standing(len(self.fleet.sites), lacking))
            site = next(iter(lacking))
            self._pause(
                f"not every gateway came up: {'; '.join(f'{name}: {what}' for name, what in lacking.items())}",
                self.paths.site(site) / "logs" / "agent.log",
            )
        for site in self.fleet.sites:
            self.paths.join_token(site).unlink(missing_ok=True)
        ticker.done(f"{len(self.fleet.sites)} gateways are ready")

    def _lacking(self, client: ControlClient) -> dict[str, str]:
        """Site -> what is missing until its gateway is ready; empty when all are."""
        try:
            seen = {site.name: site for site in client.status().sites}
        except Unavailable as error:
            return {"control": error.message}
        lacking = {}
        for name in self.fleet.sites:
            site = seen.get(name)
            if site is None:
                lacking[name] = "the control plane does not know it"
            elif not site.ready:
                open_ones = [item for item in site.conditions if item.status != "True"]
                lacking[name] = open_ones[0].message or open_ones[0].reason if open_ones else "not ready yet"
            elif not gateway_answers(self.fleet.gateway_url(name)):  # a report may be older than the gateway's end
                lacking[name] = "its gateway does not answer yet"
        return lacking

    def _pause(self, complaint: str, log: Path) -> None:
        """Wait a moment.

        Raises:
            Unavailable: there is no moment left, or the supervisor died.
        """
        if self.supervisor is not None and self.supervisor.poll() is not None:
            raise Unavailable(_with_log("the supervisor ended", self.paths.supervisor_log))
        if time.monotonic() >= self.deadline:
            raise Unavailable(
                _with_log(complaint, log),
                hint=f"it goes on trying: {self.session.command('status')}; "
                f"{self.session.command('logs')}; {self.session.command('down')}",
            )
        time.sleep(PAUSE_S)


def _standing(sites: int, lacking: dict[str, str]) -> str:
    """How many sites are ready, and what the next one waits for."""
    site, what = next(iter(lacking.items()))
    return f"{sites - len(lacking)} of {sites} sites ready; {what if what.startswith(site) else f'{site}: {what}'}"


def _with_log(complaint: str, log: Path) -> str:
    lines = last_lines(log, 8)
    return "\n".join([complaint, f"the end of {log}:", *(f"  {line[:200]}" for line in lines)]) if lines else complaint
