"""Nothing is left of a model version that was unloaded."""

import asyncio
import gc
import weakref
from pathlib import Path

from contract import engine_models as models
from nearcast.engine.exchange import Limits
from nearcast.engine.loading import Order
from nearcast.engine.serving import Serving


def test_what_was_unloaded_is_given_back(tmp_path: Path) -> None:
    async def story() -> None:
        serving = Serving(1, Limits())
        order = Order(tmp_path, models.adder(tmp_path), tmp_path / "model.sock", 10)
        served = await serving.load(order)
        endpoint = weakref.ref(served.endpoint)
        del served
        await serving.unload(order.key, 0.1)
        assert endpoint() is None
        serving.close()

    try:
        asyncio.run(story())
    finally:
        gc.unfreeze()
