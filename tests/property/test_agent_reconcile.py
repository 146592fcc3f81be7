"""The reconciler against a simulated node: any order of plans, failures, crashes and restarts keeps its promises.

The world here is an engine (a set of loaded versions), a gateway (the configuration it confirmed, plus those that it
may have taken in part) and a list of commands under way. Rules let them succeed, fail, crash or be late.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nearcast.agent.commands import Command, Fetch, Load, Remember, Route, Unload
from nearcast.agent.reconcile import is_active, step, wake_at_s, wanted
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
    PlanReceived,
    Serving,
    State,
    Tick,
    Unloaded,
    UnloadFailed,
)
from nearcast.resources.plan import PlannedModel, SiteFacts, SitePlan

SITE = SiteFacts(name="here", tier="edge", country="DE")
MODELS = ("a", "b", "c")
choices = st.dictionaries(st.sampled_from(MODELS), st.sampled_from(("1", "2", "3")))
picks = st.integers(min_value=0, max_value=7)


def plan_of(version: int, models: dict[str, str]) -> SitePlan:
    planned = tuple(
        PlannedModel(model=model, version=release, release=f"{model}-{release}", deployment=model)
        for model, release in sorted(models.items())
    )
    return SitePlan(fleet="test", site=SITE, version=version, revision=f"r{version}", models=planned, catalog=MODELS)


class Node(RuleBasedStateMachine):
    """One node with everything that can go wrong on it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.state = State(who="node")
        self.pending: list[Command] = []
        self.engine: set[Key] | None = None
        self.incarnation = 0
        self.gateway: Serving | None = None
        self.partly: list[Serving] = []
        self.on_disk: dict[str, GoodVersion] = {}
        self.suspects: set[Key] = set()
        self.out_of_routes_since: dict[Key, float] = {}

    # --- the shell ---

    def happen(self, event: Event) -> tuple[Command, ...]:
        self.state, commands = step(self.state, event, self.now_s)
        for command in commands:
            self.check(command)
            if isinstance(command, Remember):
                self.on_disk = dict(command.last_good)
            elif isinstance(command, Route):
                # The shell is at the first offer; of those that wait, only the newest counts.
                late = [other for other in self.pending if isinstance(other, Route)][1:]
                self.pending = [other for other in self.pending if other not in late] + [command]
            elif isinstance(command, Fetch | Load | Unload):
                self.pending.append(command)
        # A version that no plan names any more is forgotten, and whatever was held against it.
        self.suspects &= set(self.state.units)
        self.watch_routes()
        return commands

    def check(self, command: Command) -> None:
        match command:
            case Route(_, serving):
                assert self.engine is not None or not serving.local
                assert serving.local <= (self.engine or set()), "offered a version that the engine does not serve"
                assert serving.routed <= serving.local
            case Unload(_, key):
                assert key not in self.routable(), "unloads what is, or may be, routed"
                since = self.out_of_routes_since.get(key, 0.0)
                assert self.now_s - since >= self.state.limits.drain_s, "unloads before it has drained"
            case Load(_, key):
                others = {other.key for other in self.pending if isinstance(other, Load)}
                assert not others & self.suspects, "loads something beside a suspect"
                assert key not in self.suspects or not others, "loads a suspect beside something"
            case _:
                pass

    def routable(self) -> set[Key]:
        """Everything that the gateway has, or may have, a cluster for."""
        offers = [command.serving for command in self.pending if isinstance(command, Route)]
        known = [self.gateway] if self.gateway is not None else []
        return {key for serving in (*offers, *known, *self.partly) for key in serving.local}

    def watch_routes(self) -> None:
        routed = {key for serving in (self.gateway, *self.partly) if serving is not None for key in serving.routed}
        for key in routed:
            self.out_of_routes_since[key] = self.now_s

    def take(self, pick: int, kind: type[Command]) -> Command | None:
        found = [command for command in self.pending if isinstance(command, kind)]
        if not found:
            return None
        command = found[pick % len(found)]
        self.pending.remove(command)
        return command

    # --- what can happen ---

    @initialize(models=choices)
    def boot(self, models: dict[str, str]) -> None:
        self.happen(PlanReceived(plan_of(1, models)))
        self.start_engine()
        self.happen(GatewayUp())

    @rule(models=choices)
    def another_plan(self, models: dict[str, str]) -> None:
        assert self.state.plan is not None
        self.happen(PlanReceived(plan_of(self.state.plan.version + 1, models)))

    @rule()
    def the_same_plan(self) -> None:
        self.happen(Tick())
        assert self.state.plan is not None
        assert self.happen(PlanReceived(self.state.plan)) == ()

    @rule(models=choices)
    def an_older_plan(self, models: dict[str, str]) -> None:
        before = self.state.plan
        self.happen(Tick())
        assert self.happen(PlanReceived(plan_of(0, models))) == ()
        assert self.state.plan is before

    @rule(pick=picks, works=st.booleans(), blame=st.sampled_from((Blame.TRANSIENT, Blame.REFUSED)))
    def fetch_ends(self, pick: int, works: bool, blame: Blame) -> None:
        command = self.take(pick, Fetch)
        if isinstance(command, Fetch):
            if works:
                self.happen(Fetched(command.key, command.release, 10))
            else:
                self.happen(FetchFailed(command.key, command.release, blame, "Broken", "broken"))

    @rule(pick=picks, works=st.booleans())
    def load_ends(self, pick: int, works: bool) -> None:
        command = self.take(pick, Load)
        if isinstance(command, Load) and command.incarnation == self.incarnation and self.engine is not None:
            if works:
                self.engine.add(command.key)
                self.suspects.discard(command.key)
                self.happen(Loaded(command.incarnation, command.key))
            else:
                self.happen(LoadFailed(command.incarnation, command.key, Blame.REFUSED, "EngineRefused", "no"))

    @rule(pick=picks, works=st.booleans())
    def unload_ends(self, pick: int, works: bool) -> None:
        command = self.take(pick, Unload)
        if isinstance(command, Unload) and command.incarnation == self.incarnation and self.engine is not None:
            if works:
                self.engine.discard(command.key)
                self.happen(Unloaded(command.incarnation, command.key))
            else:
                self.happen(UnloadFailed(command.incarnation, command.key, "busy"))

    @precondition(lambda self: self.engine is not None)
    @rule()
    def engine_dies(self) -> None:
        self.suspects |= {command.key for command in self.pending if isinstance(command, Load)}
        self.pending = [command for command in self.pending if not isinstance(command, Load | Unload)]
        self.engine = None
        self.happen(EngineLost())

    @precondition(lambda self: self.engine is None)
    @rule()
    def start_engine(self) -> None:
        self.engine = set()
        self.incarnation += 1
        self.happen(EngineUp(self.incarnation, {}))

    @rule(accepts=st.booleans())
    def gateway_answers(self, accepts: bool) -> None:
        command = self.take(0, Route)
        if isinstance(command, Route) and self.state.gateway_up:
            if accepts:
                self.gateway, self.partly = command.serving, []
                self.watch_routes()
                self.happen(GatewayAccepted(command.generation, command.serving))
            else:
                self.partly.append(command.serving)
                self.watch_routes()
                self.happen(GatewayRefused(command.generation, "Rejected", "no"))

    @rule()
    def gateway_dies_and_returns(self) -> None:
        self.happen(GatewayLost())
        self.happen(GatewayUp())

    @rule(seconds=st.sampled_from((0.5, 2.0, 30.0, 4000.0)))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.watch_routes()
        self.happen(Tick())

    @rule()
    def agent_dies_and_returns(self) -> None:
        """The engine and the gateway go on; what was under way in the agent is gone, and the suspicions with it."""
        assert self.state.plan is not None
        loads = [command for command in self.pending if isinstance(command, Load)]
        plan = self.state.plan
        self.pending, self.suspects = [], set()
        self.state = State(who="node", last_good=self.on_disk)
        self.happen(PlanReceived(plan))
        if self.engine is not None:
            self.engine |= {command.key for command in loads if command.incarnation == self.incarnation}
            self.incarnation += 1
            self.happen(EngineUp(self.incarnation, {key: f"{key.model}-{key.version}" for key in self.engine}))
        else:
            self.happen(EngineLost())
        self.happen(GatewayUp())

    @rule(steps=st.integers(min_value=1, max_value=12))
    def work_goes_on(self, steps: int) -> None:
        """Some commands succeed, oldest first; when none is left, time passes until something is due."""
        for _ in range(steps):
            if not self.work_once():
                return

    @rule()
    def arrive(self) -> None:
        """Without further faults the node ends with the plan's versions routed, and with nothing else."""
        if self.engine is None:
            self.start_engine()
        for _ in range(400):
            if not self.work_once():
                break
        asked = set(wanted(self.state))
        assert self.engine == asked
        assert self.gateway is not None
        assert self.gateway.routed == asked == self.gateway.local
        assert all(is_active(self.state, key) for key in asked)
        assert set(self.state.units) == asked
        assert self.state.gateway_failure is None

    def work_once(self) -> bool:
        if not self.pending:
            wake = wake_at_s(self.state, self.now_s)
            if wake is None:
                return False
            self.now_s = wake
            self.watch_routes()
            self.happen(Tick())
            return True
        match self.pending[0]:
            case Fetch():
                self.fetch_ends(0, True, Blame.TRANSIENT)
            case Load():
                self.load_ends(0, True)
            case Unload():
                self.unload_ends(0, True)
            case _:
                self.gateway_answers(True)
        return True

    # --- what always holds ---

    @invariant()
    def the_last_good_version_stays(self) -> None:
        offered = self.state.offered
        if offered is None or self.engine is None:
            return
        for key in wanted(self.state):
            good = self.state.last_good.get(key.model)
            if good is not None and Key(key.model, good.version) in self.engine and key not in self.engine:
                assert offered.active.get(key.model) == good.version

    @invariant()
    def nothing_happens_without_a_reason(self) -> None:
        assert step(self.state, Tick(), self.now_s)[1] == ()

    def teardown(self) -> None:
        """Faults stop: the node arrives."""
        if self.state.plan is not None:
            self.arrive()


Node.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestNode = Node.TestCase
