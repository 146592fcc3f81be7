"""Turns among models, for any sizes and any order of coming and going."""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nearcast.engine.reading import LEAST_BYTES, SHORT_BYTES, Turns

MODELS = ("a", "b", "c")
SIZES = st.integers(1, 4 * SHORT_BYTES)
LARGEST = 4 * SHORT_BYTES

Item = tuple[str, int, int]


class TurnsOfModels(RuleBasedStateMachine):
    """Whatever comes leaves once, in the order of its model among its like, and no model runs away from another."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[Item] = set()
        self.turns: Turns[Item] = Turns(lambda item: item not in self.lost)
        self.waiting: dict[str, list[Item]] = {model: [] for model in MODELS}
        self.got: Counter[str] = Counter()
        self.count = 0

    @rule(model=st.sampled_from(MODELS), size=SIZES)
    def push(self, model: str, size: int) -> None:
        self.count += 1
        item = (model, size, self.count)
        if not self._present(model):
            self.got.clear()  # fairness is among those that wait all the time
        self.turns.push(model, size, item)
        self.waiting[model].append(item)

    @rule(model=st.sampled_from(MODELS), data=st.data())
    def abandon(self, model: str, data: st.DataObject) -> None:
        if items := [item for item in self.waiting[model] if item not in self.lost]:
            self.lost.add(data.draw(st.sampled_from(items)))
            self.got.clear()

    @rule(short=st.booleans())
    def take(self, short: bool) -> None:
        most = SHORT_BYTES if short else None
        wanted = [item for item in self._left() if most is None or item[1] <= most]
        item = self.turns.take(most)
        if item is None:
            assert not wanted
            return
        assert item in wanted
        model, size, _ = item
        assert item == next(each for each in wanted if each[0] == model), "of one model in the order they came"
        self.waiting[model].remove(item)
        self.got[model] += max(size, LEAST_BYTES)
        if short or not self._present(model):
            self.got.clear()

    @invariant()
    def nobody_runs_away(self) -> None:
        present = [model for model in MODELS if self._present(model)]
        if len(present) > 1:
            counts = [self.got[model] for model in present]
            assert max(counts) - min(counts) <= 2 * LARGEST

    def _left(self) -> list[Item]:
        return [item for items in self.waiting.values() for item in items if item not in self.lost]

    def _present(self, model: str) -> bool:
        return any(item not in self.lost for item in self.waiting[model])


TestTurnsOfModels = TurnsOfModels.TestCase
