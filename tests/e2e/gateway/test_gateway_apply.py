"""Changes to a running Envoy: all or nothing, without a failed request, across the death of its agent."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from nearcast.errors import Bug, InvalidInput, Unavailable
from nearcast.gateway.render import LocalModel, render
from nearcast.gateway.render.document import Document
from nearcast.resources import wire


@pytest.fixture
def site(own_fleet):
    site = own_fleet.site("fra")
    site.add("m1")
    return site


def serves(own_fleet, site, model="m1"):
    return own_fleet.ask(site.public, f"/v2/models/{model}").status == 200


def test_what_is_accepted_is_what_was_rendered(own_fleet, site):
    files = render(site.inputs({"m1": [(100, "fra")]}))
    assert site.gateway.accepted() == ""
    assert site.gateway.start_or_adopt(files) == "started"
    assert site.gateway.accepted() == files.version
    assert site.gateway.apply(files) == files.version
    more = render(site.inputs({"m1": [(100, "fra")]}, catalog=("another",)))
    assert site.gateway.apply(more) == more.version == site.gateway.accepted()
    assert own_fleet.ask(site.public, "/v2/models/another").status == 503


def with_routes(files, edit):
    """``files`` whose public route configuration was changed by ``edit``."""
    (configuration,) = files.routes["public"].resources
    changed = Document(files.routes["public"].type_url, ({**configuration, **edit},))
    return replace(files, routes={**files.routes, "public": changed})


def test_what_validation_refuses_changes_nothing(own_fleet, site):
    files = render(site.inputs({"m1": [(100, "fra")]}))
    site.gateway.start_or_adopt(files)
    before = {path.name: path.read_bytes() for path in (site.root / "envoy").glob("?ds_*.json")}
    with pytest.raises(Bug, match="virtual_hostz"):
        site.gateway.apply(with_routes(files, {"virtual_hostz": []}))
    assert {path.name: path.read_bytes() for path in (site.root / "envoy").glob("?ds_*.json")} == before
    assert site.gateway.accepted() == files.version
    assert serves(own_fleet, site)


def test_what_envoy_refuses_while_running_is_rolled_back(own_fleet, site, monkeypatch):
    """Validation switched off: the second line of defence, Envoy's own refusal read back from its statistics."""
    files = render(site.inputs({"m1": [(100, "fra")]}))
    site.gateway.start_or_adopt(files)
    monkeypatch.setattr(site.gateway, "_validate", lambda files: None)
    with pytest.raises(Bug, match="virtual_hostz"):
        site.gateway.apply(with_routes(files, {"virtual_hostz": []}))
    bad = replace(
        files, clusters=Document(files.clusters.type_url, (*files.clusters.resources, {"name": "odd", "tipe": 1}))
    )
    with pytest.raises(Bug, match="tipe"):
        site.gateway.apply(bad)
    assert serves(own_fleet, site)
    good = render(site.inputs({"m1": [(100, "fra")]}, catalog=("later",)))
    assert site.gateway.apply(good) == site.gateway.accepted()


def test_a_taken_port_is_the_operators_to_solve(own_fleet, site):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.public))
        taken.listen()
        with pytest.raises(InvalidInput, match=str(site.public)):
            site.run(site.inputs({"m1": [(100, "fra")]}))
    assert not site.gateway.is_alive()
    assert site.run(site.inputs({"m1": [(100, "fra")]})) == "started"


def test_without_envoy_nothing_is_applied(site):
    with pytest.raises(Unavailable):
        site.gateway.apply(render(site.inputs({"m1": [(100, "fra")]})))


def test_a_new_agent_adopts_the_envoy_of_a_dead_one(own_fleet, site):
    """The first agent is a real process that ends without a word."""
    inputs = site.inputs({"m1": [(100, "fra")]})
    script = f"""
import os, pickle, sys
from pathlib import Path
from nearcast.gateway.apply import Gateway
from nearcast.gateway.render import render
files = render(pickle.load(sys.stdin.buffer))
root = Path({str(site.root)!r})
gateway = Gateway(root / "envoy", root / "run", root / "gateway.log")
print(gateway.start_or_adopt(files), gateway.pid(), flush=True)
os._exit(9)
"""
    import pickle

    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=pickle.dumps(inputs), capture_output=True, timeout=60, check=False)
    word, pid = done.stdout.split()
    assert (done.returncode, word) == (9, b"started"), done.stderr
    assert serves(own_fleet, site)

    changed = render(site.inputs({"m1": [(100, "fra")]}, catalog=("another",)))
    agent = site.agent()
    assert agent.start_or_adopt(changed) == "adopted"
    assert agent.pid() == int(pid)
    assert agent.accepted() == changed.version
    assert own_fleet.ask(site.public, "/v2/models/another").status == 503
    assert site.agent().start_or_adopt(changed) == "adopted"
    agent.kill()
    assert not agent.is_alive()


def test_a_pid_that_was_reused_is_not_adopted(own_fleet, site):
    inputs = site.inputs({"m1": [(100, "fra")]})
    site.run(inputs)
    record = site.root / "envoy" / "process.json"
    site.gateway.kill()
    # The same number, now another process: this one.
    text = record.read_text()
    record.write_text(text.replace(text.split('"pid":')[1].split(",")[0], str(os.getpid())))
    agent = site.agent()
    assert not agent.is_alive()
    agent.kill()  # would end the test run if it took the number for the process
    site.gateway = agent
    assert site.run(inputs) == "started"


def test_a_killed_envoy_is_noticed_and_started_anew(own_fleet, site):
    inputs = site.inputs({"m1": [(100, "fra")]})
    site.run(inputs)
    first = site.gateway.pid()
    os.kill(first, signal.SIGKILL)
    own_fleet.until(lambda: not site.gateway.is_alive(), "the death is noticed")
    assert site.gateway.accepted() == ""
    assert site.run(inputs) == "started"
    assert site.gateway.pid() != first
    assert serves(own_fleet, site)


def test_a_bootstrap_that_changed_replaces_the_process(own_fleet, site):
    inputs = site.inputs({"m1": [(100, "fra")]})
    site.run(inputs)
    first = site.gateway.pid()
    renamed = render(replace(inputs, node="another"))
    with pytest.raises(Bug, match="bootstrap"):
        site.gateway.apply(renamed)
    assert site.gateway.start_or_adopt(renamed) == "started"
    assert site.gateway.pid() != first
    assert serves(own_fleet, site)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process can be set and read on Linux only")
def test_envoy_may_open_as_many_files_as_the_system_allows(site):
    import resource

    site.run(site.inputs({"m1": [(100, "fra")]}))
    soft, hard = resource.prlimit(site.gateway.pid(), resource.RLIMIT_NOFILE)
    assert soft == hard


def test_secrets_and_pipes_are_for_the_owner_alone(site):
    site.run(site.inputs({"m1": [(100, "fra")]}))
    files = list((site.root / "envoy").iterdir())
    pipes = [site.root / "run" / name for name in (wire.ENVOY_ADMIN, wire.ENVOY_PROBE)]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (*files, *pipes)} == {
        path.name: "0o600" for path in (*files, *pipes)
    }
    assert site.gateway.install_identity(site.identity) is False


class Load:
    """Clients on kept connections that note every answer that is not 200."""

    def __init__(self, fleet, site, threads=4):
        self.trouble, self.versions, self.count = [], [], 0
        self._stop = threading.Event()
        self._fleet, self._site = fleet, site
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self):
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self._site.public, timeout=20)
        while not self._stop.is_set():
            answer = self._fleet.exchange(connection, "/v2/models/m1/infer", {}, close=False)
            self.count += 1
            version = answer.headers.get(wire.MODEL)
            if not self.versions or self.versions[-1] != version:
                self.versions.append(version)
            if answer.status != 200:
                self.trouble.append(answer)
        connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_version_switch_under_load_fails_no_request(own_fleet, site):
    site.run(site.inputs({"m1": [(100, "fra")]}))
    with Load(own_fleet, site) as load:
        for version in ("2", "3"):
            previous = site.engines["m1", str(int(version) - 1)]
            site.add("m1", version)
            files = render(site.inputs({"m1": [(100, "fra")]}, active={"m1": version}))
            site.gateway.apply(files)
            seen = load.count
            own_fleet.until(lambda seen=seen: load.count > seen + 100, "requests go on")
            # The old engine goes: no plan names it any more.
            del site.engines["m1", str(int(version) - 1)]
            files = render(site.inputs({"m1": [(100, "fra")]}))
            site.gateway.apply(files)
            site.gateway.retire(files)
            previous.stop()
            gone = f"cluster.engine_m1@{int(version) - 1}.membership_total"
            own_fleet.until(
                lambda gone=gone: gone not in site.gateway.stats("membership_total"), "the old cluster goes"
            )
    assert load.trouble == []
    assert load.versions[0] == "m1@1"
    assert load.versions[-1] == "m1@3"


def test_moving_shares_under_load_fails_no_request_and_needs_no_validation(own_fleet, site, monkeypatch):
    other = own_fleet.site("iad")
    other.add("m1")
    other.run(other.inputs({"m1": [(100, "iad")]}, callers=("fra",)))

    def shares(local):
        rows = [(local, "fra>iad"), (100 - local, "iad>fra")]
        return render(site.inputs({"m1": rows}, peers=(other,)))

    site.gateway.start_or_adopt(shares(50))
    monkeypatch.setattr(subprocess, "run", None)  # validation would call it
    with Load(own_fleet, site) as load:
        for local in range(10, 100, 10):
            site.gateway.apply(shares(local))
    assert load.count
    assert load.trouble == []


def test_retire_waits_for_the_files_in_force(site):
    site.run(site.inputs({"m1": [(100, "fra")]}))
    old = render(site.inputs({"m1": [(100, "fra")]}))
    site.add("m1", "2")
    both = render(site.inputs({"m1": [(100, "fra")]}))
    site.gateway.apply(both)
    site.gateway.retire(old)  # not in force any more: its time is over
    assert site.gateway.stats(r"^cluster\.engine_m1@2\.membership_total$")


def test_draining_lets_a_request_finish(own_fleet, site):
    engine = site.engines["m1", "1"]
    engine.mode = "stream"
    site.run(site.inputs({"m1": [(100, "fra")]}))
    answers = []
    asking = threading.Thread(target=lambda: answers.append(own_fleet.ask(site.public, "/v2/models/m1/infer", {})))
    asking.start()
    own_fleet.until(lambda: bool(engine.seen), "the request arrives")
    site.gateway.drain_and_stop(timeout_s=10)
    asking.join(10)
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"chunk" * 4)]
    assert not site.gateway.is_alive()
    site.gateway.drain_and_stop()  # nothing to do


def test_an_envoy_that_was_told_to_drain_is_replaced_and_not_adopted(own_fleet, site, monkeypatch):
    """The agent dies between draining and stopping: the drained Envoy would soon close its listeners."""
    inputs = site.inputs({"m1": [(100, "fra")]})
    site.run(inputs)
    first = site.gateway.pid()
    with monkeypatch.context() as patch:
        patch.setattr(site.gateway._process, "stop", lambda: None)
        site.gateway.drain_and_stop(timeout_s=1)
    agent = site.agent()
    assert agent.start_or_adopt(render(inputs)) == "started"
    assert agent.pid() != first
    assert serves(own_fleet, site)
    agent.kill()


def test_the_log_is_bounded(site, monkeypatch):
    from nearcast import logs

    monkeypatch.setattr(logs, "LIMIT_BYTES", 1000)
    monkeypatch.setattr(logs, "KEPT_BYTES", 100)
    log = site.root / "gateway.log"
    log.write_bytes(b"a" * 2000 + b"end")
    site.gateway.tend()
    assert log.read_bytes() == b""
    assert log.with_name("gateway.log.1").read_bytes() == b"a" * 97 + b"end"
    site.gateway.tend()
    assert log.with_name("gateway.log.1").exists()


def test_an_unused_local_model_is_not_routed_to(own_fleet, site):
    """A socket that is up but not active: loaded, waiting for its turn."""
    inputs = site.inputs({"m1": [(100, "fra")]})
    waiting = LocalModel("m1", "2", site.engines["m1", "1"].path)
    site.run(replace(inputs, local=(*inputs.local, waiting), active={"m1": "3"}))
    answer = own_fleet.ask(site.public, "/v2/models/m1")
    assert (answer.status, answer.headers["x-nearcast-error"]) == (503, "no_place_ready")
