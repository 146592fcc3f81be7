"""The worlds that scenarios play in."""

from pathlib import Path

import msgspec
import pytest

from nearcast.agent.states import PlanReceived
from nearcast.registry.client import TrustedRepository
from nearcast.registry.mirror import Kept
from nearcast.resources.plan import SitePlan
from nearcast.resources.release import release_digest
from scenario.attacked_node import Node
from scenario.registry_world import Settled, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def settled(world: World) -> tuple[World, TrustedRepository, SitePlan]:
    """A node that believes plan 5, while plan 6 and a second release have just been published."""
    one = world.push("1")
    plan = world.plan(5, one)
    world.plans.publish(plan)
    node = world.node()
    node.poll_plan()
    node.release("m", "1", release_digest(one))
    world.plans.publish(world.plan(6, one, world.push("2")))
    return world, node, plan


@pytest.fixture
def node(settled: Settled) -> Node:
    """A node that runs plan 5 with m@1; plan 7 with m@2 instead has just been published."""
    world, trusted, plan = settled
    for name, repository in (("plan", "plans/fra"), ("releases", "releases")):
        kept = msgspec.json.decode((world.folder / "trust" / f"{name}.json").read_bytes(), type=Kept)
        world.before[f"{repository}/metadata/timestamp.json"] = kept.timestamp
    world.plans.publish(world.plan(7, world.manifest("2")))
    made = Node(world, trusted)
    made.take(PlanReceived(plan))
    return made
