"""Long JSON arrays are read in pieces, and mean what they mean in one."""

import msgspec
import numpy as np
import pytest

from nearcast.engine import datatypes
from nearcast.engine.datatypes import NotElements, from_json


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datatypes, "PIECE_BYTES", 8)


@pytest.mark.parametrize("space", ["", " ", "\n "])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64", "UINT8"])
def test_pieces_make_the_same_tensor(datatype: str, space: str) -> None:
    values = [*range(100), 7]
    text = "[" + space + f"{space},{space}".join(map(str, values)) + space + "]"
    array = from_json(msgspec.Raw(text.encode()), datatype, (101, 1))
    assert array.shape == (101, 1)
    assert array.ravel().tolist() == values


@pytest.mark.parametrize(
    "text",
    [
        "[1,2,3,4,5,6,7,8,9,10,11,]",
        "[,1,2,3,4,5,6,7,8,9,10,11]",
        "[1,2,3,4,5,,6,7,8,9,10,11]",
        "[1,2,3,4,5,6,7,8,9,10,11,12]",
        "[1,2,3,4,5,6,7,8,9,10]",
        "[1,2,3,4,5,6,[7],8,9,10,11]",
        "[1,2,3,4,5,6,7,8,9,10,300]",
        "[1,2,3,4,5,6,7,8,9,10,true]",
        '[1,2,3,4,5,6,7,8,9,10,"11"]',
        "[1,2,3,4,5,6,7,8,9,10,0.5]",
    ],
)
def test_what_is_wrong_in_one_is_wrong_in_pieces(text: str) -> None:
    with pytest.raises(NotElements):
        from_json(msgspec.Raw(text.encode()), "UINT8", (11,))


def test_nested_arrays_are_read_as_a_whole() -> None:
    array = from_json(msgspec.Raw(np.arange(40).reshape(20, 2).tolist().__repr__().encode()), "INT32", (20, 2))
    assert np.array_equal(array, np.arange(40, dtype=np.int32).reshape(20, 2))
