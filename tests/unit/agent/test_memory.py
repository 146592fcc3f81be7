"""What outlives a restart, and files that cannot be read."""

from pathlib import Path

from nearcast.agent.memory import LAST_GOOD_FILE, ROUTES_FILE, Memory
from nearcast.agent.states import GoodVersion
from nearcast.planning.cost import Terms
from nearcast.planning.routes import ModelRoute, PlaceCost, RefusedPlace, RouteTable
from nearcast.resources.status import Share


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.last_good() == {}
    assert memory.routes() is None
    good = {"m": GoodVersion("1", "sha256:abc")}
    table = RouteTable(
        made_at_s=7.0,
        models={
            "m": ModelRoute(
                "routed",
                (Share(percent=100, order=("a", "b")),),
                (PlaceCost("a", "ready", Terms(wait_s=0.5), 1.0),),
                (RefusedPlace("c", ("eu-only",)),),
            )
        },
    )
    memory.keep_last_good(good)
    memory.keep_routes(table)
    assert Memory(tmp_path).last_good() == good
    assert Memory(tmp_path).routes() == table


def test_a_damaged_file_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / LAST_GOOD_FILE).write_text('{"m": 3')
    (tmp_path / ROUTES_FILE).write_text("[]")
    assert Memory(tmp_path).last_good() == {}
    assert Memory(tmp_path).routes() is None
