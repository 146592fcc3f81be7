"""One model behind the engine's own serving code, on TCP, since wrk cannot connect to Unix sockets.

    python -m bench.engine_server DIRECTORY MODEL PORT [SOCKET]

Everything but the kind of socket is what a site runs: loading, profile, lane, connection. One thread per model run.
Gateways find it at SOCKET, where it is given.
"""

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from nearcast.engine.connection import Connection
from nearcast.engine.exchange import Limits
from nearcast.engine.loading import Order
from nearcast.engine.serving import Serving
from nearcast.registry.release import describe


async def serve(directory: Path, model: str, port: int, socket: Path | None = None) -> None:
    """Serve until killed."""
    manifest = describe(directory, model=model, version="1", now=datetime.now(UTC)).manifest
    with tempfile.TemporaryDirectory(prefix="nc-") as run_dir:
        serving = Serving(1, Limits())
        served = await serving.load(Order(directory, manifest, socket or Path(run_dir) / "m-bench", 4096))
        endpoint = served.endpoint
        assert endpoint is not None
        server = await asyncio.get_running_loop().create_server(lambda: Connection(endpoint), "127.0.0.1", port)
        print("ready", served.profile, flush=True)
        while server.is_serving():
            serving.sweep()
            await asyncio.sleep(1)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *map(Path, sys.argv[4:5])))
