"""The store against a dictionary: any sequence of changes, refusals, crashes and restarts."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import func, select

from nearcast.control.database import Database
from nearcast.control.store import Change, Snapshot, Store
from nearcast.control.tables import Content, Event
from nearcast.resources.kinds import AnyResource, revision_of_resource
from nearcast.resources.manifest import resource_from_document

NAMES = st.sampled_from(["a", "b", "c"])
COUNTRIES = st.sampled_from(["DE", "FR", "US"])


def site(name: str, country: str) -> AnyResource:
    return resource_from_document(
        {
            "apiVersion": "nearcast.dev/v1alpha1",
            "kind": "Site",
            "metadata": {"name": name},
            "spec": {"country": country},
        }
    )


class Refused(Exception):
    """What a decision raises."""


class StoreMachine(RuleBasedStateMachine):
    """``held`` is what must be in force, ``events`` every change that was acknowledged, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "control.db"
        self.now = datetime(2026, 11, 20, tzinfo=UTC)
        self.held: dict[str, AnyResource] = {}
        self.events: list[tuple[str, str, str | None]] = []
        self.generations: dict[str, int] = {}
        self.open()

    def open(self) -> None:
        self.database = Database(f"sqlite:///{self.path}")
        self.store = Store(self.database, self.tick)

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()

    def note(self, name: str, resource: AnyResource | None) -> None:
        """What a change of ``name`` shall leave behind."""
        before = self.held.get(name)
        if (before and revision_of_resource(before)) == (resource and revision_of_resource(resource)):
            return
        self.generations[name] = self.generations.get(name, 0) + 1
        if resource is None:
            del self.held[name]
            self.events.append((name, "delete", None))
        else:
            self.held[name] = resource
            self.events.append((name, "put", revision_of_resource(resource)))

    @rule(wanted=st.dictionaries(NAMES, COUNTRIES, min_size=1))
    def put(self, wanted: dict[str, str]) -> None:
        resources = [site(name, country) for name, country in wanted.items()]
        after = self.store.change(lambda *_: [Change("Site", item.name, item) for item in resources], actor="test")
        for item in resources:
            self.note(item.name, item)
        assert after == self.store.snapshot()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.store.change(lambda *_: [Change("Site", name, None)], actor="test")
        self.note(name, None)

    @rule(name=NAMES, country=COUNTRIES)
    def refuse(self, name: str, country: str) -> None:
        def decide(snapshot: Snapshot, _members: object) -> list[Change]:
            assert {key[1] for key in snapshot.held} == set(self.held)
            raise Refused

        before = self.store.snapshot()
        try:
            self.store.change(decide, actor="test")
        except Refused:
            assert self.store.snapshot() is before

    @rule(name=NAMES, country=COUNTRIES)
    def fail_half_way(self, name: str, country: str) -> None:
        """An error while the second change is written undoes the first."""
        changes = [Change("Site", name, site(name, country)), Change("Site", "never-there", None)]
        before = self.store.snapshot()
        self.store.change(lambda *_: changes[1:], actor="test")  # deleting nothing is no change
        assert self.store.snapshot() is before
        broken = Change("Site", name, object())  # type: ignore[arg-type]
        try:
            self.store.change(lambda *_: [changes[0], broken], actor="test")
        except AttributeError:
            assert self.store.snapshot() is before

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.open()

    @invariant()
    def what_is_held_is_what_was_acknowledged(self) -> None:
        snapshot = self.store.snapshot()
        assert {key[1]: item.resource for key, item in snapshot.held.items()} == self.held
        assert {key[1]: item.generation for key, item in snapshot.held.items()} == {
            name: self.generations[name] for name in self.held
        }
        assert [item.name for item in snapshot.state.sites] == sorted(self.held)
        assert snapshot.sequence == len(self.events)

    @invariant()
    def history_is_complete_and_contents_are_kept_once(self) -> None:
        for name in self.generations:
            found = [(name, event.action, event.revision) for event in self.store.history("Site", name)]
            assert found == [event for event in self.events if event[0] == name]
        with self.database.read() as session:
            assert session.scalar(select(func.count()).select_from(Event)) == len(self.events)
            contents = set(session.scalars(select(Content.revision)))
        assert contents == {revision for _, _, revision in self.events if revision}


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestStore = StoreMachine.TestCase
