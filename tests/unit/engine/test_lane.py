"""The lane keeps its promise: whoever submits work hears of it exactly once, whatever the model does."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence

import numpy as np
import pytest

from nearcast.engine.datatypes import Array
from nearcast.engine.lane import Lane
from nearcast.engine.profile import Point, Profile
from nearcast.engine.refusal import Refusal
from nearcast.engine.work import Timing, Work
from nearcast.resources import wire

INLINE = Profile(curve=(Point(1, 1e-5), Point(8, 1e-5)), max_batch=8, inline=True, service_s=1e-5, row_bytes=8)
THREAD = Profile(curve=(Point(1, 1e-2), Point(8, 1e-2)), max_batch=8, inline=False, service_s=1e-2, row_bytes=8)


class Model:
    """Doubles its input; remembers the rows of each run, and waits at a gate where one is given."""

    def __init__(self, gate: threading.Event | None = None, fails: Callable[[Array], Exception | None] | None = None):
        self.runs: list[list[float]] = []
        self._gate = gate
        self._fails = fails

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        self.runs.append(feeds[0][:, 0].tolist())
        if self._gate is not None:
            assert self._gate.wait(10)
        error = self._fails(feeds[0]) if self._fails is not None else None
        if error is not None:
            raise error
        return [feeds[0] * 2]


class Asked(Work):
    """Work that remembers what it heard."""

    __slots__ = ("heard",)

    def __init__(self, value: float) -> None:
        super().__init__([np.array([[value]], np.float64)], 1, 0.0)
        self.heard: list[float | str] = []

    def finished(self, results: Sequence[Array], timing: Timing) -> None:
        self.heard.append(float(results[0][0, 0]))

    def failed(self, refusal: Refusal) -> None:
        self.heard.append(refusal.reason)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110  the worker's thread sets no event of ours
            await asyncio.sleep(0)


async def settled(works: Sequence[Asked]) -> None:
    await until(lambda: all(work.heard or work.cancelled for work in works))


def with_lane(model: Model, profile: Profile, story: Callable[[Lane], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        lane = Lane("m@1", model, profile, pad=False, queue=16, loop=asyncio.get_running_loop())
        try:
            await story(lane)
        finally:
            lane.close()

    asyncio.run(run())


@pytest.mark.parametrize("profile", [INLINE, THREAD])
def test_what_comes_in_one_tick_is_one_batch(profile: Profile) -> None:
    model = Model()

    async def story(lane: Lane) -> None:
        works = [Asked(n) for n in range(5)]
        for work in works:
            lane.submit(work)
        await settled(works)
        assert [work.heard for work in works] == [[2 * n] for n in range(5)]

    with_lane(model, profile, story)
    assert model.runs == [[0, 1, 2, 3, 4]]


def test_the_next_batch_forms_while_one_runs() -> None:
    gate = threading.Event()
    model = Model(gate)

    async def story(lane: Lane) -> None:
        works = [Asked(n) for n in range(5)]
        lane.submit(works[0])
        await until(lambda: bool(model.runs))
        for work in works[1:]:
            lane.submit(work)
            await asyncio.sleep(0)
        assert lane.waiting == 4
        assert not lane.is_idle
        gate.set()
        await settled(works)

    with_lane(model, THREAD, story)
    assert model.runs == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize("profile", [INLINE, THREAD])
def test_the_culprit_fails_alone(profile: Profile) -> None:
    model = Model(fails=lambda x: ValueError("three") if 3 in x else None)

    async def story(lane: Lane) -> None:
        works = [Asked(n) for n in range(5)]
        for work in works:
            lane.submit(work)
        await settled(works)
        assert [work.heard for work in works] == [[0], [2], [4], [wire.CODE_INFERENCE_FAILED], [8]]
        assert lane.gauges.failed == 1

    with_lane(model, profile, story)


@pytest.mark.parametrize("profile", [INLINE, THREAD])
def test_nobody_gets_the_rows_of_another(profile: Profile) -> None:
    """A model whose number of results follows from its input looks batched only until that input comes."""

    class Finds(Model):
        def run(self, feeds: Sequence[Array]) -> list[Array]:
            (doubled,) = super().run(feeds)
            return [np.repeat(doubled, np.where(feeds[0][:, 0] == 1, 3, 1), axis=0)]

    model = Finds()

    async def story(lane: Lane) -> None:
        for _ in range(2):
            works = [Asked(n) for n in range(4)]
            for work in works:
                lane.submit(work)
            await settled(works)
            assert [work.heard for work in works] == [[0], [2], [4], [6]]

    with_lane(model, profile, story)
    assert model.runs == [[0, 1, 2, 3], *([[0], [1], [2], [3]] * 2)], "the second time it is not tried"


@pytest.mark.parametrize("profile", [INLINE, THREAD])
def test_a_bug_in_one_answer_costs_no_other(profile: Profile) -> None:
    class Mute(Asked):
        __slots__ = ()

        def finished(self, results: Sequence[Array], timing: Timing) -> None:
            raise KeyError("a bug")

    async def story(lane: Lane) -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        works = [Asked(0), Mute(1), Asked(2), Mute(3), Asked(4)]
        for work in works:
            lane.submit(work)
        await settled(works)
        broke = [wire.CODE_ENGINE_FAILURE]
        assert [work.heard for work in works] == [[0], broke, [4], broke, [8]]
        assert [type(error) for error in told] == [KeyError]

    with_lane(Model(), profile, story)


def test_a_bug_in_the_worker_is_told_to_all_who_wait_for_it_and_the_lane_goes_on() -> None:
    broken = [True]

    def fails(x: Array) -> Exception | None:
        return KeyError("a bug") if broken[0] else None

    async def story(lane: Lane) -> None:
        works = [Asked(n) for n in range(3)]
        for work in works:
            lane.submit(work)
        await settled(works)
        assert [work.heard for work in works] == [[wire.CODE_ENGINE_FAILURE]] * 3
        broken[0] = False
        again = Asked(7)
        lane.submit(again)
        await settled([again])
        assert again.heard == [14]

    with_lane(Model(fails=fails), THREAD, story)


def test_a_full_lane_refuses_and_says_so() -> None:
    gate = threading.Event()

    async def story(lane: Lane) -> None:
        works = [Asked(n) for n in range(30)]
        accepted = []
        for work in works:
            try:
                lane.check_room()
            except Refusal as refusal:
                assert (refusal.status, refusal.full) == (503, wire.FULL_QUEUE)  # noqa: PT017
                assert refusal.retry_after_s is not None  # noqa: PT017
            else:
                lane.submit(work)
                accepted.append(work)
        assert len(accepted) == 16
        assert lane.gauges.refused == 14
        assert lane.load(0.0, 0.0).room == 0
        gate.set()
        await settled(accepted)
        assert lane.load(0.0, 0.0).room == 16

    with_lane(Model(gate), THREAD, story)


def test_cancelled_work_is_not_run() -> None:
    gate = threading.Event()
    model = Model(gate)

    async def story(lane: Lane) -> None:
        first, *others = [Asked(n) for n in range(4)]
        lane.submit(first)
        await until(lambda: bool(model.runs))
        for work in others:
            lane.submit(work)
        await asyncio.sleep(0)
        lane.cancel(others[:2])
        gate.set()
        await settled([first, *others])
        assert [work.heard for work in others] == [[], [], [6]]

    with_lane(model, THREAD, story)
    assert model.runs == [[0], [3]]


@pytest.mark.parametrize("profile", [INLINE, THREAD])
def test_closing_tells_all_who_wait(profile: Profile) -> None:
    async def story(lane: Lane) -> None:
        works = [Asked(n) for n in range(3)]
        for work in works:
            lane.submit(work)
        lane.close()
        late = Asked(9)
        lane.submit(late)
        assert [work.heard for work in [*works, late]] == [[wire.CODE_UNLOADED]] * 4
        with pytest.raises(Refusal, match="unloaded"):
            lane.check_room()

    with_lane(Model(), profile, story)


def test_inputs_too_large_for_the_loop_go_to_the_worker() -> None:
    threads: list[str] = []

    class Watching(Model):
        def run(self, feeds: Sequence[Array]) -> list[Array]:
            threads.append(threading.current_thread().name)
            return super().run(feeds)

    async def story(lane: Lane) -> None:
        small, large = Asked(1), Asked(2)
        large.size_bytes = 10**9
        lane.submit(small)
        await settled([small])
        lane.submit(large)
        await settled([large])

    with_lane(Watching(), INLINE, story)
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("run-m@1")


def test_a_model_that_was_slow_for_a_while_comes_back_into_the_loop() -> None:
    """A busy neighbour on the machine makes runs long for a moment; that must not cost the fast path for good."""
    model = Model()

    async def story(lane: Lane) -> None:
        seconds = [1.0]
        clock = iter(range(10**6))
        lane._now = lambda: next(clock) * seconds[0]  # every look at the clock is that much later
        works = [Asked(1) for _ in range(3)]
        for work in works:
            lane.submit(work)
            await settled([work])
        assert not lane.inline
        seconds[0] = 1e-9
        clock = iter(range(10**6))
        for _ in range(200):
            work = Asked(2)
            lane.submit(work)
            await settled([work])
        assert lane.inline

    with_lane(model, INLINE, story)


def test_who_would_wait_longer_than_it_may_is_sent_on() -> None:
    gate = threading.Event()
    model = Model(gate)

    async def story(lane: Lane) -> None:
        lane.check_room(0.0)  # nothing runs: nobody waits
        works = [Asked(n) for n in range(10)]
        for work in works:
            lane.submit(work)
        await until(lambda: bool(model.runs))
        lane.check_room(10.0)
        lane.check_room(None)
        with pytest.raises(Refusal, match="expected to wait at most 1 ms") as caught:
            lane.check_room(0.001)
        assert (caught.value.status, caught.value.full) == (503, wire.FULL_QUEUE)
        gate.set()
        await settled(works)

    with_lane(model, THREAD, story)


def test_the_work_of_other_models_counts_as_far_as_a_request_would_wait_for_it() -> None:
    async def run() -> None:
        gate, crowd, loop = threading.Event(), set[Lane](), asyncio.get_running_loop()
        model = Model(gate)
        busy, asked = (
            Lane(name, model, THREAD, pad=False, queue=64, loop=loop, crowd=crowd) for name in ("busy@1", "m@1")
        )
        quick = Lane("quick@1", Model(), INLINE, pad=False, queue=16, loop=loop, crowd=crowd)
        works = [Asked(n) for n in range(24)]
        for work in works:
            busy.submit(work)
        await until(lambda: bool(model.runs))
        assert busy.ahead_s() >= 16 * THREAD.item_s
        # Both advance alike, so of the other's work no more comes first than one request takes here.
        assert asked.wait_s() == pytest.approx(THREAD.service_s)
        asked.check_room(2 * THREAD.service_s)
        with pytest.raises(Refusal):
            asked.check_room(THREAD.service_s / 2)
        quick.check_room(0.0)  # what runs in the loop asks nobody
        gate.set()
        await settled(works)
        await until(lambda: busy.is_idle)
        assert asked.wait_s() == 0.0
        assert crowd == set()  # who rests is asked no more
        for lane in (busy, asked, quick):
            lane.close()

    asyncio.run(run())


def test_a_lane_that_is_closed_is_remembered_by_nobody() -> None:
    async def run() -> None:
        crowd = set[Lane]()
        lane = Lane("m@1", Model(), THREAD, pad=False, queue=16, loop=asyncio.get_running_loop(), crowd=crowd)
        work = Asked(1)
        lane.submit(work)
        await settled([work])
        assert crowd == {lane}
        lane.close()
        assert crowd == set()

    asyncio.run(run())
