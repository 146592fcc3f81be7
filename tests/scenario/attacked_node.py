"""A node as far as a status is made of it, and what must hold of it after every attack."""

from nearcast.agent.pull import Puller
from nearcast.agent.reconcile import step
from nearcast.agent.states import Fetched, FetchFailed, Key, PlanReceived, State, Tick
from nearcast.agent.status import Vitals, node_status
from nearcast.planning.routes import RouteTable
from nearcast.registry.artifacts import ArtifactStore
from nearcast.registry.client import TrustedRepository
from nearcast.resources.release import release_digest
from scenario.registry_world import World

NEW = Key("m", "2")


class Node:
    """A node's real puller, state machine and status, without engine and gateway."""

    def __init__(self, world: World, trusted: TrustedRepository, fetch: object | None = None) -> None:
        self.world, self.trusted = world, trusted
        store = ArtifactStore(world.folder / "models", pause=lambda _seconds: None)
        self.puller = Puller(trusted, store, fetch or world.mirror)  # type: ignore[arg-type]
        self.state, self.now_s = State(who="fra/n1"), 0.0

    def take(self, event: object) -> None:
        self.now_s += 1.0
        self.state, _ = step(self.state, event, self.now_s)  # type: ignore[arg-type]

    def poll(self) -> None:
        self.take(self.puller.poll())

    def obtain(self, key: Key = NEW) -> Fetched | FetchFailed:
        self.take(PlanReceived(self.world.plan(7, self.world.manifest("2"))))
        self.now_s += 1000.0  # past every wait
        self.take(Tick())
        release = release_digest(self.world.manifest(key.version))
        outcome = self.puller.obtain(key, release, lambda _done, _all: None)
        assert outcome is not None
        self.take(outcome)
        return outcome

    def told(self) -> set[tuple[str, str, str]]:
        """(condition or model, reason, message) of everything that the status complains of."""
        vitals = Vitals("", "", "", RouteTable(models={}), None, {}, 0, (), self.now_s)
        status = node_status("fra", "n1", "test", "then", self.state, vitals)
        models = {(f"{item.model}@{item.version}", item.reason, item.message) for item in status.models if item.reason}
        return models | {(item.type, item.reason, item.message) for item in status.conditions}


def assert_recovers(node: Node) -> None:
    node.world.mirror.forged.clear()
    node.world.mirror.moved = None
    node.world.mirror.objects = node.world.store
    node.poll()
    assert isinstance(node.obtain(), Fetched)
    assert node.told() == set()
