"""The reconciler, told as short stories: what happens, and what it then wants done."""

from dataclasses import dataclass, field

from nearcast.agent.commands import Abandon, Collect, Command, Fetch, Load, Remember, Route, Unload
from nearcast.agent.reconcile import is_active, step, wake_at_s
from nearcast.agent.states import (
    Blame,
    EngineLost,
    EngineUp,
    Event,
    Fetched,
    FetchFailed,
    GatewayAccepted,
    GatewayLost,
    GatewayRefused,
    GatewayUp,
    GoodVersion,
    Key,
    Loaded,
    LoadFailed,
    Phase,
    PlanReceived,
    PlanRefused,
    PlanUnchanged,
    State,
    Tick,
    Unloaded,
)
from nearcast.resources.plan import PlannedModel, SiteFacts, SitePlan

A1, A2, B1, C1 = Key("a", "1"), Key("a", "2"), Key("b", "1"), Key("c", "1")


def plan_of(version: int, *keys: Key, release: str = "") -> SitePlan:
    models = tuple(
        PlannedModel(model=key.model, version=key.version, release=release or f"sha256:{key}", deployment=key.model)
        for key in keys
    )
    site = SiteFacts(name="here", tier="edge", country="DE")
    return SitePlan(fleet="f", site=site, version=version, revision=f"r{version}", models=models)


@dataclass
class Node:
    """A node whose shell is the test."""

    state: State = field(default_factory=lambda: State(who="n"))
    now_s: float = 0.0

    def when(self, *events: Event) -> list[Command]:
        done: list[Command] = []
        for event in events:
            self.state, commands = step(self.state, event, self.now_s)
            done.extend(commands)
        return done

    def after(self, seconds: float) -> list[Command]:
        self.now_s += seconds
        return self.when(Tick())

    def accept(self) -> list[Command]:
        assert self.state.offered is not None
        return self.when(GatewayAccepted(self.state.generation, self.state.offered))

    def fetch_and_load(self, *keys: Key) -> None:
        for key in keys:
            self.when(Fetched(key, f"sha256:{key}", 5))
        for key in keys:
            self.when(Loaded(1, key))

    @classmethod
    def serving(cls, *keys: Key) -> "Node":
        node = cls()
        node.when(PlanReceived(plan_of(1, *keys)), EngineUp(1, {}), GatewayUp())
        node.fetch_and_load(*keys)
        node.accept()
        assert all(is_active(node.state, key) for key in keys)
        return node


def only(commands: list[Command], kind: type) -> list[Command]:
    return [command for command in commands if isinstance(command, kind)]


def test_the_way_from_a_plan_to_a_routed_model() -> None:
    node = Node()
    assert node.when(EngineUp(1, {}), GatewayUp()) == []
    fetch, route = node.when(PlanReceived(plan_of(1, A1)))
    assert fetch == Fetch(A1, "sha256:a@1")
    assert isinstance(route, Route)
    assert not route.serving.local, "peers can be asked before anything is here"
    assert node.when(Fetched(A1, "sha256:a@1", 5)) == [Load(1, A1, "sha256:a@1")]
    (route,) = node.when(Loaded(1, A1))
    assert isinstance(route, Route)
    assert route.serving.active == {"a": "1"}
    assert not is_active(node.state, A1)
    remember, collect = node.accept()
    assert remember == Remember({"a": GoodVersion("1", "sha256:a@1")})
    assert collect == Collect(frozenset({"sha256:a@1"}))
    assert is_active(node.state, A1)
    assert wake_at_s(node.state, node.now_s) is None


def test_nothing_is_offered_before_the_engine_was_looked_at() -> None:
    node = Node()
    commands = node.when(PlanReceived(plan_of(1, A1)), GatewayUp())
    assert only(commands, Route) == []
    assert len(only(node.when(EngineLost()), Route)) == 1


def test_a_change_of_version_starts_beside_switches_drains_and_stops() -> None:
    node = Node.serving(A1)
    node.when(PlanReceived(plan_of(2, A2)))
    node.accept()
    node.when(Fetched(A2, "sha256:a@2", 5))
    (switch,) = node.when(Loaded(1, A2))
    assert isinstance(switch, Route)
    assert switch.serving.active == {"a": "2"}
    assert switch.serving.local == {A1, A2}, "requests on their way still find the old version"
    assert only(node.after(60.0), Unload) == [], "not before the switch is confirmed"
    assert only(node.accept(), Unload) == []
    assert node.after(1.9) == []
    (route,) = node.after(0.2)
    assert isinstance(route, Route)
    assert route.serving.local == {A2}
    assert only(node.after(10.0), Unload) == [], "not while the gateway may still have its cluster"
    assert only(node.accept(), Unload) == [Unload(1, A1, node.state.limits.engine_drain_s)]
    assert node.when(Unloaded(1, A1)) == [Collect(frozenset({"sha256:a@2"}))]
    assert set(node.state.units) == {A2}


def test_a_release_that_is_refused_leaves_the_old_one_serving() -> None:
    node = Node.serving(A1)
    node.when(PlanReceived(plan_of(2, A2)))
    node.accept()
    node.when(FetchFailed(A2, "sha256:a@2", Blame.REFUSED, "DigestMismatch", "bytes differ"))
    failure = node.state.units[A2].failure
    assert failure is not None
    assert failure.reason == "DigestMismatch"
    assert is_active(node.state, A1)
    assert node.after(1.0) == []
    assert node.after(failure.retry_at_s) == [Fetch(A2, "sha256:a@2")]


def test_a_new_plan_gives_a_failed_download_another_chance_at_once() -> None:
    node = Node.serving(A1)
    node.when(PlanReceived(plan_of(2, A1, B1)))
    node.when(FetchFailed(B1, "sha256:b@1", Blame.REFUSED, "UnsignedRelease", "nobody signed it"))
    assert only(node.when(PlanReceived(plan_of(3, A1, B1))), Fetch) == [Fetch(B1, "sha256:b@1")]


def test_after_a_boot_the_last_good_version_serves_until_the_wanted_one_can() -> None:
    node = Node(State(who="n", last_good={"a": GoodVersion("1", "sha256:a@1")}))
    commands = node.when(PlanReceived(plan_of(2, A2)), EngineUp(1, {}), GatewayUp())
    assert only(commands, Fetch) == [Fetch(A2, "sha256:a@2"), Fetch(A1, "sha256:a@1")]
    node.when(FetchFailed(A2, "sha256:a@2", Blame.TRANSIENT, "Unavailable", "no uplink"))
    node.when(Fetched(A1, "sha256:a@1", 5), Loaded(1, A1))
    assert node.state.offered is not None
    assert node.state.offered.active == {"a": "1"}


def test_an_adopted_engine_keeps_what_it_serves() -> None:
    node = Node()
    commands = node.when(PlanReceived(plan_of(1, A1)), EngineUp(1, {A1: "sha256:a@1", B1: ""}), GatewayUp())
    assert only(commands, Load) == []
    assert node.state.offered is not None
    assert node.state.offered.local == {A1, B1}
    assert node.state.offered.active == {"a": "1"}
    assert only(node.accept(), Unload) == []
    node.after(2.0)
    assert only(node.accept(), Unload) == [Unload(1, B1, node.state.limits.engine_drain_s)]


def test_after_an_engine_restart_everything_is_loaded_again() -> None:
    node = Node.serving(A1, B1)
    (route,) = node.when(EngineLost())
    assert isinstance(route, Route)
    assert not route.serving.local
    assert not is_active(node.state, A1)
    assert only(node.when(EngineUp(2, {})), Load) == [Load(2, A1, "sha256:a@1"), Load(2, B1, "sha256:b@1")]


def test_answers_of_a_dead_engine_are_not_believed() -> None:
    node = Node.serving(A1)
    node.when(EngineLost(), EngineUp(2, {}))
    assert node.when(Loaded(1, A1)) == []
    assert node.state.units[A1].phase is Phase.LOADING


def test_a_model_that_kills_its_engine_loads_last_alone_and_ever_more_seldom() -> None:
    node = Node()
    node.when(PlanReceived(plan_of(1, A1, B1)), EngineUp(1, {}), GatewayUp())
    node.when(Fetched(A1, "sha256:a@1", 5), Fetched(B1, "sha256:b@1", 5))
    node.when(EngineLost())
    assert node.state.units[A1].is_suspect
    assert node.state.units[B1].is_suspect, "either of the two may have done it"
    node.when(EngineUp(2, {}))
    assert only(node.after(1.0), Load) == [Load(2, A1, "sha256:a@1")], "one at a time"
    assert only(node.when(Loaded(2, A1)), Load) == [Load(2, B1, "sha256:b@1")]
    assert not node.state.units[A1].is_suspect
    node.when(EngineLost())
    assert only(node.when(EngineUp(3, {})), Load) == [Load(3, A1, "sha256:a@1")], "the innocent come first"
    node.when(Loaded(3, A1))
    assert node.after(1.0) == [], "a second crash costs a longer wait"
    assert only(node.after(6.0), Load) == [Load(3, B1, "sha256:b@1")]
    node.when(LoadFailed(3, B1, Blame.REFUSED, "EngineRefused", "bad"))
    assert node.state.units[B1].is_suspect, "suspicion ends with a load that works"


def test_nothing_loads_beside_a_suspect() -> None:
    node = Node()
    node.when(PlanReceived(plan_of(1, B1)), EngineUp(1, {}), GatewayUp())
    node.when(Fetched(B1, "sha256:b@1", 5), EngineLost(), EngineUp(2, {}))
    assert only(node.after(1.0), Load) == [Load(2, B1, "sha256:b@1")]
    node.when(PlanReceived(plan_of(2, A1, B1)))
    assert only(node.when(Fetched(A1, "sha256:a@1", 5)), Load) == []
    assert only(node.when(Loaded(2, B1)), Load) == [Load(2, A1, "sha256:a@1")]


def test_a_refused_offer_is_made_again_later_and_what_it_may_have_left_is_not_unloaded() -> None:
    node = Node.serving(A1)
    node.when(PlanReceived(plan_of(2, A1, B1)))
    node.when(Fetched(B1, "sha256:b@1", 5), Loaded(1, B1))
    node.when(GatewayRefused(node.state.generation, "Rejected", "no"))
    assert node.state.gateway_failure is not None
    assert is_active(node.state, A1)
    node.when(PlanReceived(plan_of(3, A1)))
    node.when(GatewayRefused(node.state.generation, "Rejected", "no"))
    commands = [command for _ in range(5) for command in node.after(5.0)]
    assert only(commands, Route) != []
    assert only(commands, Unload) == [], "parts of the refused offer may be in force"
    node.accept()
    node.after(2.0)
    assert only(node.accept(), Unload) == [Unload(1, B1, node.state.limits.engine_drain_s)]


def test_a_gateway_that_comes_back_must_confirm_again() -> None:
    node = Node.serving(A1)
    node.when(GatewayLost())
    assert not is_active(node.state, A1)
    (route,) = node.when(GatewayUp())
    assert isinstance(route, Route)
    assert not is_active(node.state, A1)
    node.accept()
    assert is_active(node.state, A1)


def test_an_offer_that_was_confirmed_late_counts_but_does_not_settle() -> None:
    node = Node.serving(A1)
    node.when(PlanReceived(plan_of(2, A1, B1)))
    early, generation = node.state.offered, node.state.generation
    assert early is not None
    node.when(PlanReceived(plan_of(3, A1)))
    node.when(GatewayAccepted(generation, early))
    assert node.state.accepted is early
    assert node.state.open_local == {A1}


def test_a_download_that_nobody_wants_any_more_is_abandoned() -> None:
    node = Node.serving(A1)
    node.when(PlanReceived(plan_of(2, A1, B1)))
    assert Abandon(B1) in node.when(PlanReceived(plan_of(3, A1)))
    assert node.when(Fetched(B1, "sha256:b@1", 5)) == []


def test_a_release_under_a_loaded_version_cannot_change() -> None:
    node = Node.serving(A1)
    commands = node.when(PlanReceived(plan_of(2, A1, release="sha256:other")))
    assert only(commands, Unload) == only(commands, Fetch) == []
    failure = node.state.units[A1].failure
    assert failure is not None
    assert failure.reason == "ReleaseChanged"
    assert node.state.offered is not None
    assert node.state.offered.active == {"a": "1"}
    node.when(PlanReceived(plan_of(3, A1)))
    assert node.state.units[A1].failure is None


def test_downloads_are_limited_and_the_plan_comes_before_the_fallback() -> None:
    node = Node(State(who="n", last_good={"a": GoodVersion("1", "sha256:a@1")}))
    commands = node.when(EngineUp(1, {}), PlanReceived(plan_of(2, A2, B1, C1)))
    assert [fetch.key for fetch in only(commands, Fetch) if isinstance(fetch, Fetch)] == [A2, B1]
    assert only(node.when(Fetched(A2, "sha256:a@2", 5)), Fetch) == [Fetch(C1, "sha256:c@1")]


def test_trouble_with_the_plan_changes_nothing_that_runs() -> None:
    node = Node.serving(A1)
    assert node.when(PlanRefused(Blame.REFUSED, "TrustRefused", "signature")) == []
    assert node.state.plan_trouble is not None
    assert node.when(PlanUnchanged()) == []
    assert node.state.plan_trouble is None
    assert is_active(node.state, A1)
