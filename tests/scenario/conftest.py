"""The worlds that scenarios play in."""

from pathlib import Path

import pytest

from nearcast.registry.client import TrustedRepository
from nearcast.resources.plan import SitePlan
from nearcast.resources.release import release_digest
from scenario.registry_world import World


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
