"""Transcripts of a node: what is published, what goes wrong, and what the node says it did about it."""

import asyncio
from pathlib import Path

import pytest

from nearcast.errors import Unavailable
from nearcast.registry.refused import Attack, TrustRefused
from scenario.agent_world import World, plan_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_change_of_version(world: World) -> None:
    async def story(world: World) -> None:
        world.publish(1, "m@1")
        await asyncio.sleep(5)
        world.publish(2, "m@2")
        await asyncio.sleep(5)

    assert world.play(story) == [
        "  0.0 published 1",
        "  0.0 plan version=1 models=m@1 peers=0",
        "  0.0 routes plan=1",
        "  0.0 loaded model=m@1",
        "  0.0 routes plan=1 local=m@1",
        "  5.0 published 2",
        "  5.0 plan version=2 models=m@2 peers=0",
        "  5.0 routes plan=2 local=m@1",
        "  5.0 loaded model=m@2",
        "  5.0 routes plan=2 local=m@2",
        "  7.0 unloaded model=m@1",
        "  7.0 removed old releases freed_bytes=100",
    ]


def test_a_download_that_fails_for_a_while(world: World) -> None:
    async def story(world: World) -> None:
        world.trouble["m@1"] = Unavailable("the repository is away")
        world.publish(1, "m@1")
        await asyncio.sleep(1.2)
        world.trouble.clear()
        await asyncio.sleep(5)

    said = world.play(story)
    assert [line[6:] for line in said] == [
        "published 1",
        "plan version=1 models=m@1 peers=0",
        "routes plan=1",
        'fetch failed model=m@1 reason=Unreachable message="the repository is away"',
        'fetch failed model=m@1 reason=Unreachable message="the repository is away"',
        "loaded model=m@1",
        "routes plan=1 local=m@1",
    ]


def test_tampered_bytes_leave_the_old_version_serving(world: World) -> None:
    async def story(world: World) -> None:
        world.publish(1, "m@1")
        await asyncio.sleep(1)
        world.trouble["m@2"] = TrustRefused(Attack.TAMPERED, "blob", "a.onnx", "bad")
        world.publish(2, "m@2")
        await asyncio.sleep(1)
        assert world.served is not None
        assert world.served.active == {"m": "1"}
        world.trouble.clear()
        world.publish(3, "m@2")
        await asyncio.sleep(5)

    said = world.play(story)
    assert '  1.0 fetch failed model=m@2 reason=DigestMismatch message="a.onnx: tampered (blob): bad"' in said
    assert said[-4:] == [
        "  2.0 loaded model=m@2",
        "  2.0 routes plan=3 local=m@2",
        "  4.0 unloaded model=m@1",
        "  4.0 removed old releases freed_bytes=100",
    ]


def test_a_model_that_the_engine_refuses_is_tried_seldom_and_harms_nobody(world: World) -> None:
    async def story(world: World) -> None:
        world.refused.add("bad@1")
        world.publish(1, "bad@1", "good@1")
        await asyncio.sleep(600)

    said = world.play(story)
    refusals = [line for line in said if "load failed model=bad@1 reason=EngineRefused" in line]
    assert 5 <= len(refusals) <= 12
    assert sum("loaded model=good@1" in line for line in said) == 1
    assert world.served is not None
    assert world.served.active == {"good": "1"}


def test_a_model_that_kills_its_engine_does_not_take_the_others_down_for_long(world: World) -> None:
    async def story(world: World) -> None:
        world.deadly.add("bad@1")
        world.publish(1, "bad@1", "good@1", "nice@1")
        await asyncio.sleep(3600)
        assert world.served is not None
        assert world.served.active == {"good": "1", "nice": "1"}
        assert world.crashes <= 7, "each crash costs the others a second: they become rare"
        world.deadly.clear()
        await asyncio.sleep(3700)
        assert world.served.active == {"bad": "1", "good": "1", "nice": "1"}

    world.play(story)


def test_an_agent_that_died_adopts_what_runs_and_changes_nothing(world: World) -> None:
    async def story(world: World) -> None:
        world.publish(1, "m@1")
        await asyncio.sleep(5)

    async def afterwards(world: World) -> None:
        await asyncio.sleep(60)

    world.play(story)
    again = World(world.folder)
    again.offered_plan, again.in_engine, again.on_disk = plan_of(1, "m@1"), world.in_engine, world.on_disk
    assert again.play(afterwards) == [
        "  0.0 plan version=1 models=m@1 peers=0",
        "  0.0 routes plan=1 local=m@1",
    ]


def test_a_boot_without_an_uplink_serves_the_last_good_version(world: World) -> None:
    async def story(world: World) -> None:
        world.publish(1, "m@1")
        await asyncio.sleep(5)

    async def cut_off(world: World) -> None:
        world.offered_plan = Unavailable("no uplink")
        world.poll()
        await asyncio.sleep(60)
        assert world.served is not None
        assert world.served.active == {"m": "1"}

    world.play(story)
    again = World(world.folder)
    # The plan of before the power cut wants a version that never arrived.
    again.offered_plan, again.on_disk = plan_of(2, "m@2"), world.on_disk
    again.trouble["m@2"] = Unavailable("no uplink")
    said = again.play(cut_off)
    assert "  0.0 loaded model=m@1" in said
    assert '  0.0 no new plan reason=Unreachable message="no uplink"' in said


def test_a_gateway_that_refuses_is_asked_again_and_nothing_is_unloaded_meanwhile(world: World) -> None:
    async def story(world: World) -> None:
        world.publish(1, "m@1")
        await asyncio.sleep(5)
        world.gateway_refuses = True
        world.publish(2, "m@2")
        await asyncio.sleep(30)
        assert len(world.in_engine) == 2
        world.gateway_refuses = False
        await asyncio.sleep(70)

    said = world.play(story)
    assert sum("offer refused" in line for line in said) >= 3
    assert [line[6:] for line in said if "unloaded" in line] == ["unloaded model=m@1"]
    assert {str(key) for key in world.in_engine} == {"m@2"}
