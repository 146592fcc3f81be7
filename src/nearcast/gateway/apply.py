"""A rendered configuration in force, all or nothing: validated, written, and confirmed by the running Envoy.

The order is the only one in which no request meets a route to a cluster that is not there: new clusters, wait until
they are accepted and warm, routes, listeners; old clusters go out later (:meth:`Gateway.retire`), when requests have
drained. Envoy itself applies the good half of a bad file, so whatever it refuses is replaced by the last good one.

Acceptance is read from Envoy's statistics (``version_text``), never assumed. Does not decide what to apply, or when.
"""

import contextlib
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from prometheus_client.core import Metric as Family

from nearcast.durable import read_if_exists, write_if_changed, write_whole
from nearcast.errors import Bug, NearcastError, Unavailable
from nearcast.gateway import acceptance, demand, metrics
from nearcast.gateway.admin import Admin
from nearcast.gateway.demand import Asked
from nearcast.gateway.envoy import EnvoyProcess, Launch, binary, drain
from nearcast.gateway.render.document import (
    AUTHORITY_FILE,
    BOOTSTRAP_FILE,
    CLUSTERS_FILE,
    IDENTITY_FILE,
    LISTENERS_FILE,
    PUBLIC_FILE,
    ROUTE_NAMES,
    Document,
    GatewayFiles,
    routes_file,
)
from nearcast.gateway.render.identity import (
    Identity,
    PublicCertificate,
    authority_secret,
    identity_secret,
    public_secret,
)
from nearcast.logs import bound
from nearcast.resources import wire
from nearcast.resources.revision import canonical_json

ACCEPT_S: Final = 10.0
"""How long Envoy may take to accept files, or to start."""
VALIDATE_S: Final = 30.0
_POLL_S: Final = 0.005
_RECORD_FILE: Final = "process.json"
_FLAT_FILE: Final = "flattened.json"
_FILES: Final = (CLUSTERS_FILE, *map(routes_file, ROUTE_NAMES), LISTENERS_FILE)


class Gateway:
    """One node's Envoy. Every method blocks (from asyncio: ``asyncio.to_thread``); a lock holds changes apart.

    Args:
        envoy_dir: directory of the generated files, absolute; the ``envoy_dir`` of the rendered inputs.
        run_dir: directory of the sockets; the ``run_dir`` of the rendered inputs.
        log_file: where Envoy's log goes; bounded by :meth:`tend`.
        concurrency: Envoy's worker threads.
        also_bounded: further files that Envoy appends to.
    """

    def __init__(
        self,
        envoy_dir: Path,
        run_dir: Path,
        log_file: Path,
        *,
        concurrency: int = 1,
        also_bounded: tuple[Path, ...] = (),
    ) -> None:
        self._bounded = (log_file, *also_bounded)
        self._dir = envoy_dir
        self._process = EnvoyProcess(
            Launch(
                bootstrap=envoy_dir / BOOTSTRAP_FILE,
                log_file=log_file,
                record=envoy_dir / _RECORD_FILE,
                admin=run_dir / wire.ENVOY_ADMIN,
                concurrency=concurrency,
            )
        )
        self._admin = Admin(run_dir / wire.ENVOY_ADMIN)
        self._lock = threading.Lock()
        self._hurried = threading.Event()
        self._in_force: dict[str, Document] = {}
        self._applied = ""
        self._valid_shape = ""

    # --- the process -------------------------------------------------------------------------------------------------

    def start_or_adopt(self, files: GatewayFiles) -> Literal["started", "adopted"]:
        """Have an Envoy run with ``files`` in force: the one that runs already where it can be, else a new one.

        An Envoy that runs is adopted when it was started in the same way (version, command, bootstrap) and answers;
        otherwise it is drained and replaced.

        Raises:
            Bug: Envoy refuses the files (an adopted one keeps the last good ones).
            InvalidInput: an address is taken or not ours.
            Unavailable: Envoy did not come up in time.
        """
        with self._lock:
            bootstrap = canonical_json(files.bootstrap)
            if self._process.find():
                if self._process.runs_as(bootstrap) and self._answers():
                    self._in_force = self._on_disk()
                    self._apply(files)
                    return "adopted"
                self._drain_and_stop(timeout_s=5.0)
            self._start(files, bootstrap)
            return "started"

    def is_alive(self) -> bool:
        """Whether the Envoy process is alive."""
        return self._process.is_alive()

    def pid(self) -> int | None:
        """Process id of the Envoy that is looked after, or None."""
        return self._process.pid

    def drain_and_stop(self, *, timeout_s: float = 10.0) -> None:
        """Let requests finish, for at most ``timeout_s``, then stop Envoy; nothing where none runs."""
        with self._lock:
            self._process.find()
            self._drain_and_stop(timeout_s)

    def turn_away(self, files: GatewayFiles, linger_s: float) -> None:
        """Put the peer routes of ``files`` in force, for peers to go elsewhere, and give them ``linger_s`` to hear it.

        What is in flight goes on. Only a stop may follow: an agent that dies now is followed by one that starts anew.

        Raises:
            Bug, Unavailable: as for :meth:`apply`.
        """
        with self._lock:
            if not self._process.is_alive():
                return
            self._process.mark_leaving()
            self._put({routes_file("peer"): files.routes["peer"]})
        self._hurried.wait(linger_s)

    def hurry(self) -> None:
        """Wait for no request any longer, in a stop that is under way or comes later. From any thread."""
        self._hurried.set()

    def kill(self) -> None:
        """Stop Envoy at once; nothing where none runs. A change that waits for a hung Envoy is not waited for."""
        if not self._process.is_alive():
            with self._lock:
                self._process.find()
        self._process.kill()

    def tend(self) -> None:
        """Keep the logs within their bounds; to be called now and then."""
        for path in self._bounded:
            bound(path)

    # --- the configuration -------------------------------------------------------------------------------------------

    def install_identity(self, identity: Identity) -> bool:
        """Write certificate, key and authority for Envoy (0600): before the first start, and at each rotation.

        Returns:
            Whether anything changed. A running Envoy takes the new identity up for new connections by itself.
        """
        with self._lock:
            changed = self._write_secret(IDENTITY_FILE, identity_secret(identity))
            return self._write_secret(AUTHORITY_FILE, authority_secret(identity)) or changed

    def install_public(self, certificate: PublicCertificate) -> bool:
        """Write what clients are shown (0600): before the first start with TLS, and whenever it is a new one.

        Returns:
            Whether it is another one. A running Envoy shows it to new connections by itself, and drops none.
        """
        with self._lock:
            return self._write_secret(PUBLIC_FILE, public_secret(certificate))

    def has_public(self) -> bool:
        """Whether a certificate for clients was ever installed."""
        return (self._dir / PUBLIC_FILE).exists()

    def apply(self, files: GatewayFiles) -> str:
        """Put ``files`` in force; clusters of before stay until :meth:`retire`. Nothing happens when they are.

        Cost: a file write and some milliseconds where only shares changed, else a validation besides (0.2 s).

        Returns:
            ``files.version``, which Envoy has confirmed.

        Raises:
            Bug: Envoy refuses them, or they need another process (`start_or_adopt`); the last good ones are in force.
            InvalidInput: an address is taken or not ours; as above.
            Unavailable: Envoy does not run, or did not confirm in time; the last good files are on disk again.
        """
        with self._lock:
            if not self._process.is_alive():
                raise Unavailable("expected a running Envoy, found none", hint="start_or_adopt() starts one")
            if not self._process.runs_as(canonical_json(files.bootstrap)):
                raise Bug("the bootstrap changed, which a running Envoy cannot follow; start_or_adopt() replaces it")
            return self._apply(files)

    def retire(self, files: GatewayFiles) -> None:
        """Take out the clusters that ``files`` does not need; nothing when other files came into force meanwhile.

        Raises:
            Bug, Unavailable: as for :meth:`apply`.
        """
        with self._lock:
            if files.version == self._applied and self._process.is_alive():
                self._put({CLUSTERS_FILE: files.clusters})

    def accepted(self) -> str:
        """Version of the configuration that Envoy confirms to run: of the files applied last, or the empty string."""
        stats = self._stats_if_any()
        return self._applied if stats and not acceptance.unconfirmed(self._in_force, stats) else ""

    def stats(self, pattern: str = "") -> dict[str, str]:
        """Envoy's statistics whose names match the regular expression ``pattern``.

        Raises:
            Unavailable: Envoy does not answer.
        """
        return self._admin.stats(pattern)

    def asked(self) -> dict[str, Asked]:
        """What clients have asked by model, since Envoy was started.

        Raises:
            Unavailable: Envoy does not answer.
        """
        return demand.asked(self._admin.prometheus(demand.PATTERN))

    def families(self, own_site: str) -> list[Family]:
        """Its figures as metrics of ours; where it does not answer, that."""
        try:
            labelled = self._admin.prometheus(metrics.LABELLED)
            return list(metrics.families(labelled, self._admin.stats(metrics.PLAIN), own_site))
        except Unavailable:
            return list(metrics.nothing())

    def _write_secret(self, name: str, secret: Document) -> bool:
        data = secret.encode()
        if read_if_exists(self._dir / name) == data:
            return False
        write_whole(self._dir / name, data, mode=0o600)
        return True

    # --- inside the lock ---------------------------------------------------------------------------------------------

    def _start(self, files: GatewayFiles, bootstrap: bytes) -> None:
        self._validate(files)
        documents = _documents(files)
        for name, document in documents.items():
            write_if_changed(self._dir / name, document.encode(), mode=0o600)
        offset = self._process.log_size()
        self._in_force, self._applied = {}, ""
        self._process.start(bootstrap)
        try:
            self._await(documents, {}, offset)
        except NearcastError:
            self._process.stop()
            raise
        self._in_force, self._applied = documents, files.version

    def _apply(self, files: GatewayFiles) -> str:
        if files.version == self._applied and self.accepted():
            return self._applied
        self._validate(files)
        wanted = _documents(files)
        standing = self._in_force.get(CLUSTERS_FILE)
        if standing is not None:
            wanted[CLUSTERS_FILE] = files.clusters.joined(standing.resources)
        routes = {routes_file(name): wanted[routes_file(name)] for name in ROUTE_NAMES}
        standing_routes = {name: self._in_force[name] for name in routes if name in self._in_force}
        self._put({CLUSTERS_FILE: wanted[CLUSTERS_FILE]})
        try:
            self._put(routes)
            self._put({LISTENERS_FILE: wanted[LISTENERS_FILE]})
        except NearcastError:
            self._restore(standing_routes)  # clusters that nothing routes to do no harm, and go with the next retire
            raise
        self._applied = files.version
        return files.version

    def _put(self, documents: Mapping[str, Document]) -> None:
        """Write those of ``documents`` that Envoy does not run, and wait until it does.

        The old ones are back on disk when this raises.
        """
        stats = self._admin.stats(acceptance.PATTERN)
        offset = self._process.log_size()
        missing = acceptance.unconfirmed(documents, stats)
        before = {name: self._in_force[name] for name in missing if name in self._in_force}
        for name in missing:
            write_whole(self._dir / name, documents[name].encode(), mode=0o600)
        try:
            self._await(documents, stats, offset)
        except NearcastError:
            self._restore(before)
            raise
        self._in_force.update(documents)

    def _restore(self, before: Mapping[str, Document]) -> None:
        """Have the files of ``before`` on disk again, from which Envoy takes up what it had."""
        for name, document in before.items():
            data = document.encode()
            if read_if_exists(self._dir / name) != data:
                write_whole(self._dir / name, data, mode=0o600)
        self._in_force.update(before)

    def _await(self, documents: Mapping[str, Document], before: Mapping[str, str], offset: int) -> None:
        """Wait until Envoy runs ``documents`` and nothing is warming any more.

        Raises:
            Bug, InvalidInput: it refused one since the statistics ``before``; its log from ``offset`` says why.
            Unavailable: it took longer than :data:`ACCEPT_S`.
        """
        deadline = time.monotonic() + ACCEPT_S
        stats: Mapping[str, str] = {}
        while time.monotonic() < deadline:
            stats = self._stats_if_any()
            if not stats and not self._process.is_alive():
                raise acceptance.refusal("Envoy ended", self._process.log_since(offset))
            if names := acceptance.refused(list(documents), stats, before):
                raise acceptance.refusal(f"Envoy refused {', '.join(names)}", self._process.log_since(offset))
            if stats and not acceptance.unconfirmed(documents, stats) and acceptance.is_warm(stats):
                return
            time.sleep(_POLL_S)
        waiting = ", ".join(acceptance.unconfirmed(documents, stats)) or "its clusters as warm"
        raise Unavailable(f"Envoy did not confirm {waiting} within {ACCEPT_S:g} s")

    def _stats_if_any(self) -> Mapping[str, str]:
        try:
            return self._admin.stats(acceptance.PATTERN)
        except Unavailable:
            return {}

    def _validate(self, files: GatewayFiles) -> None:
        """Have Envoy check ``files`` in one piece, unless only weights differ from what it has checked already."""
        shape = files.shape
        if shape == self._valid_shape:
            return
        flat = self._dir / _FLAT_FILE
        write_if_changed(flat, canonical_json(files.flattened()), mode=0o600)
        command = [str(binary()), "--mode", "validate", "--config-path", str(flat), "--log-level", "error"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=VALIDATE_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"Envoy did not validate its configuration within {VALIDATE_S:g} s") from error
        if done.returncode != 0:
            lines = [line.split("] ", 2)[-1] for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            raise Bug(f"Envoy refuses the rendered configuration: {' '.join(lines[-2:])}")
        self._valid_shape = shape

    def _answers(self) -> bool:
        """Whether the process that was found is up; it may have been started a moment ago."""
        deadline = time.monotonic() + ACCEPT_S / 2
        while self._process.is_alive() and time.monotonic() < deadline:
            if self._admin.is_live():
                return True
            time.sleep(10 * _POLL_S)
        return False

    def _on_disk(self) -> dict[str, Document]:
        """The documents that the files hold; those that cannot be read are left out."""
        read = ((name, read_if_exists(self._dir / name)) for name in _FILES)
        documents = ((name, Document.decode(data)) for name, data in read if data is not None)
        return {name: document for name, document in documents if document is not None}

    def _drain_and_stop(self, timeout_s: float) -> None:
        if not self._process.is_alive():
            return
        self._process.mark_leaving()
        with contextlib.suppress(Unavailable):  # one that answers no more has nothing left to finish
            drain(self._admin, self._process, timeout_s, self._hurried)
        self._process.stop()


def _documents(files: GatewayFiles) -> dict[str, Document]:
    """The dynamic files by name, in the order of :data:`_FILES`."""
    routes = {routes_file(name): files.routes[name] for name in ROUTE_NAMES}
    return {CLUSTERS_FILE: files.clusters, **routes, LISTENERS_FILE: files.listeners}
