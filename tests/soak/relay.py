"""Links that can be cut: TCP relays on loopback, in a process of their own, told what to do by lines on its input.

`cut NAME` breaks the connections of a link and refuses new ones; `stall NAME` keeps everything open and carries
nothing, as a dead router does; `heal NAME` undoes both. Every command is answered by `done NAME` on standard output.
"""

import asyncio
import json
import sys
from dataclasses import dataclass, field

import uvloop

CHUNK_BYTES = 256 * 1024


@dataclass
class Link:
    """One relay: who connects to ``listen`` talks to ``target``."""

    name: str
    listen: int
    target: int
    server: asyncio.Server | None = None
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    pipes: set[asyncio.Task[None]] = field(default_factory=set)

    async def heal(self) -> None:
        self.flowing.set()
        if self.server is None:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.listen)

    async def stall(self) -> None:
        self.flowing.clear()

    async def cut(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
        for pipe in self.pipes:
            pipe.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.pipes.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.wait(
                [asyncio.create_task(way) for way in (self._carry(reader, there), self._carry(back, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.pipes.discard(task)
            for side in (writer, there):
                if side is not None:
                    side.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return


async def _main(links: dict[str, Link]) -> None:
    for link in links.values():
        await link.heal()
    commands: asyncio.StreamReader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    _say("ready")
    while line := (await commands.readline()).decode().split():
        verb, name = line
        link = links[name]
        await {"cut": link.cut, "stall": link.stall, "heal": link.heal}[verb]()
        _say(f"done {name}")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_main({name: Link(name, *ports) for name, ports in json.loads(sys.argv[1]).items()}))
