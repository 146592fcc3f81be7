"""The steps between running processes and a fleet that answers: authority, releases, sites, tokens, ready gateways.

Every step is safe to repeat. Nothing here is told to a process: files are written, and the supervisor looks at them.
"""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from nearcast.agent.layout import forget_identity, layout_of
from nearcast.cli.children import agent_child, agent_name, has_joined
from nearcast.cli.connect import local_target, transport_of
from nearcast.cli.fleet import FleetFile, LocalPaths, Processes, node_name
from nearcast.cli.listen import gateway_answers, metrics_answer
from nearcast.cli.pids import end
from nearcast.cli.progress import Ticker
from nearcast.cli.releaser import begin_releases
from nearcast.cli.session import Session
from nearcast.cli.tail import last_lines
from nearcast.client import ControlClient
from nearcast.durable import write_whole
from nearcast.errors import NotFound, Unavailable

PAUSE_S = 0.1
TOKEN_LIFE_S = 3600.0
AGENT_GRACE_S = 30.0


@dataclass(slots=True)
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
            self._forget_deleted(client, ticker)
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

    def _forget_deleted(self, client: ControlClient, ticker: Ticker) -> None:
        """Sites that the fleet does not have any more are none of this machine's either."""
        held = {str(document["metadata"]["name"]) for document in client.resources("sites")}
        held |= {str(document["metadata"]["name"]) for document in self.fleet.pending}
        gone = [site for site in self.fleet.sites if site not in held and has_joined(self.paths, site)]
        if not gone:
            return
        sites = {site: own for site, own in self.fleet.sites.items() if site not in gone}
        self._keep(msgspec.structs.replace(self.fleet, sites=sites))
        for site in gone:
            self._end_agent(site)
            forget_identity(layout_of(self.paths.site(site)))
            ticker.step(f"{site} was deleted: its node is stopped")

    def _keep(self, fleet: FleetFile) -> None:
        self.fleet = fleet
        self.paths.write_fleet(fleet)

    def _end_agent(self, site: str) -> None:
        """Stop the agent of ``site``, if it runs; the supervisor starts it again where the fleet still has the site."""
        processes = self.paths.read_processes()
        record = processes.children.get(agent_name(site)) if processes else None
        if record is not None:
            end([record], AGENT_GRACE_S)

    def _replace_lost(self, client: ControlClient, ticker: Ticker) -> None:
        """Where a member's key is not here any more, or its node was revoked, a new node takes its place.

        The old one is shut out for good, so it never comes back by its name; what it holds besides its identity stays.
        """
        members = {(str(node["site"]), str(node["name"])) for node in client.nodes()}
        lost = {}
        for site in self.fleet.sites:
            node = node_name(self.fleet, site)
            has_key = layout_of(self.paths.site(site)).key.exists()
            if not has_key if (site, node) in members else has_joined(self.paths, site):
                lost[site] = node
        if not lost:
            return
        sites = {
            site: msgspec.structs.replace(own, node=own.node + 1) if site in lost else own
            for site, own in self.fleet.sites.items()
        }
        self._keep(msgspec.structs.replace(self.fleet, pending=(), sites=sites))
        for site, node in lost.items():
            if (site, node) in members:
                client.revoke(site, node)
            forget_identity(layout_of(self.paths.site(site)))
            self._end_agent(site)
            what = f"the key of {node} is gone" if (site, node) in members else f"{node} was revoked"
            ticker.step(f"{site}: {what}; a new node takes its place")

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
        lacking: dict[str, str] = {}
        processes = self.paths.read_processes()
        for name in self.fleet.sites:
            site = seen.get(name)
            if site is None:
                lacking[name] = "the control plane does not know it"
            elif not site.ready:
                open_ones = [item for item in site.conditions if item.status != "True"]
                lacking[name] = open_ones[0].message or open_ones[0].reason if open_ones else "not ready yet"
            elif processes and self._has_other_settings(processes, name):
                lacking[name] = "its agent starts again, with other settings"
            elif not gateway_answers(self.fleet, name):  # a report may be older than the gateway's end
                lacking[name] = "its gateway does not answer yet"
            elif not (site.gateway_url or "").startswith(f"{urlsplit(self.fleet.gateway_url(name)).scheme}:"):
                lacking[name] = "it has not reported its new address yet"
            elif not metrics_answer(self.fleet, name):
                lacking[name] = "its metrics are not served yet"
        return lacking

    def _has_other_settings(self, processes: Processes, site: str) -> bool:
        """Whether the agent of ``site`` runs with other settings than the fleet has now."""
        told = processes.settings.get(agent_name(site))
        return told is not None and told != agent_child(self.paths, self.fleet, site).settings

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
