"""What may run as one batch, and how results are cut apart again."""

from collections.abc import Sequence

import numpy as np
import pytest

from nearcast.engine.datatypes import Array
from nearcast.engine.layout import Field, Layout, Raw
from nearcast.engine.refusal import Refusal
from nearcast.engine.work import LOOK_AHEAD, Backlog, Timing, Work, joined, parted


class Piece(Work):
    """Work that nobody waits for."""

    __slots__ = ()

    def finished(self, results: Sequence[Array], timing: Timing) -> None:
        raise AssertionError

    def failed(self, refusal: Refusal) -> None:
        raise AssertionError


def piece(rows: int = 1, width: int = 4) -> Piece:
    return Piece([np.full((rows, width), width, np.float32)], rows, 0.0)


def tokens(*ids: int) -> Piece:
    row = np.array([ids], np.int64)
    return Piece([row, np.ones_like(row)], 1, 0.0)


def filled(*pieces: Work, pad: bool = False) -> Backlog:
    backlog = Backlog(pad=pad)
    for one in pieces:
        backlog.push(one)
    return backlog


def test_all_that_fits_leaves_together_in_order() -> None:
    pieces = [piece() for _ in range(5)]
    backlog = filled(*pieces)
    assert backlog.take(8) == pieces
    assert backlog.take(8) == []
    assert (backlog.count, backlog.size_bytes) == (0, 0)


def test_rows_stay_within_the_limit() -> None:
    backlog = filled(*(piece(rows=3) for _ in range(4)))
    assert [len(backlog.take(8)) for _ in range(3)] == [2, 2, 0]


def test_work_larger_than_the_limit_runs_alone() -> None:
    large, small = piece(rows=100), piece()
    backlog = filled(large, small)
    assert backlog.take(8) == [large]
    assert backlog.take(8) == [small]


def test_different_shapes_do_not_mix_and_the_oldest_goes_first() -> None:
    wide, narrow = [piece(width=8) for _ in range(2)], [piece(width=4) for _ in range(2)]
    backlog = filled(wide[0], narrow[0], wide[1], narrow[1])
    assert backlog.take(8) == wide
    assert backlog.take(8) == narrow
    assert backlog.take(8) == []


def test_mixed_work_then_empty_then_uniform_work() -> None:
    backlog = filled(piece(width=8), piece(width=4))
    while backlog.take(8):
        pass
    again = [piece(), piece()]
    for one in again:
        backlog.push(one)
    assert backlog.take(8) == again


def test_looking_ahead_is_bounded() -> None:
    others = [piece(width=8) for _ in range(LOOK_AHEAD + 10)]
    last = piece(width=4)
    backlog = filled(piece(width=4), *others, last)
    assert len(backlog.take(8)) == 1
    assert backlog.count == len(others) + 1
    assert backlog.take(8) == others[:8]


def test_cancelled_work_never_leaves() -> None:
    pieces = [piece() for _ in range(3)]
    backlog = filled(*pieces)
    pieces[1].cancelled = True
    backlog.drop_cancelled()
    assert backlog.count == 2
    assert backlog.size_bytes == pieces[0].size_bytes * 2
    assert backlog.take(8) == [pieces[0], pieces[2]]


def test_token_rows_of_like_width_are_padded_together() -> None:
    short, long = tokens(5, 6), tokens(7, 8, 9)
    batch = filled(short, long, pad=True).take(8)
    assert batch == [short, long]
    ids, mask = joined(batch)
    assert ids.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_padding_that_costs_more_than_it_gives_is_not_done() -> None:
    short, long = tokens(*range(3)), tokens(*range(400))
    backlog = filled(short, long, pad=True)
    assert backlog.take(8) == [short]
    assert backlog.take(8) == [long]


def raw_piece(layout: Layout, *values: float) -> Piece:
    return Piece(Raw(layout, b"head" + np.array(values, "<f4").tobytes()), layout.rows, 0.0)  # type: ignore[arg-type]


def layout_of(rows: int) -> Layout:
    end = 4 + rows * 8
    field = Field(np.dtype("<f4"), (rows, 2), 4, end)
    return Layout(fields=(field,), body_bytes=end, rows=rows, outputs=(), trailing=(2,), size_bytes=rows * 8)


def test_raw_tensors_of_one_layout_are_stacked_as_bytes() -> None:
    layout = layout_of(1)
    (stacked,) = joined([raw_piece(layout, 1, 2), raw_piece(layout, 3, 4)])
    assert stacked.tolist() == [[1, 2], [3, 4]]


def test_raw_tensors_are_stacked_with_others_too() -> None:
    batch = [raw_piece(layout_of(1), 1, 2), raw_piece(layout_of(2), 3, 4, 5, 6), piece(width=2)]
    (stacked,) = joined(batch)
    assert stacked.tolist() == [[1, 2], [3, 4], [5, 6], [2, 2]]


@pytest.mark.parametrize("rows", [[1, 1, 1], [2, 1], [1, 0, 2], [3], [0, 0]])
def test_results_come_back_to_their_owners(rows: list[int]) -> None:
    batch = [piece(rows=n) for n in rows]
    out = np.arange(sum(rows) * 2).reshape(-1, 2)
    parts = parted(batch, [out, out[:, 0]])
    assert [len(part[0]) for part in parts] == rows
    assert [part.raw(0) for part in parts] == [part[0].tobytes() for part in parts]
    assert np.concatenate([part[0] for part in parts]).tolist() == out.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == out[:, 0].tolist()
