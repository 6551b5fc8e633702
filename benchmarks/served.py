"""The whole server, `colloque serve`, played as our pages use it: a link, a WebSocket, one connection each. [IO]"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.lab import SERVER_IP, Lab, stop
from benchmarks.page import Page
from benchmarks.scenario import Seat
from benchmarks.wsclient import WebSocketError, connect
from loadtest.generator import Generator, LoadError
from server.records import RoomRecord, Tenant
from server.store import Store
from tests.live import environment_of

_PORT = 8080
_TENANT = "benchmark"
_MANY = 1_000_000_000
_READY_S = 20
NO_LIMITS: dict[str, Any] = {
    "http": {"max_connections_per_address": _MANY, "max_joins_per_address_per_minute": _MANY},
    "media": {"workers": 1, "max_in_conversation": 1000},
}
"""One address plays everybody, and a fan-out is larger than any room of pages."""


class Rooms:
    """The rooms of a server that runs, each always relayed, and the people in them.

    Args:
        store: Its database.
        tenant: The clinic.
        port: Of its HTTP.
        within: Where sockets that reach it are made.
    """

    def __init__(
        self, store: Store, tenant: str, port: int, within: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._port = port
        self._within = within
        self._rooms: dict[int, RoomRecord] = {}
        self._pages: dict[int, Page] = {}
        self._turn = asyncio.Lock()

    async def join(self, generator: Generator, seat: Seat) -> None:
        """Give somebody a link, and let them join with it; as a clinician, whom nobody has to admit.

        Raises:
            LoadError: They are not let in.
        """
        async with self._turn:
            if seat.room not in self._rooms:
                self._rooms[seat.room] = await self._store.create_room(self._tenant, topology="relay-only")
        _, secret = await self._store.mint_link(self._rooms[seat.room], "clinician")
        try:
            client = await connect(self._port, "/ws", f"http://127.0.0.1:{self._port}", within=self._within())
        except (WebSocketError, OSError) as error:
            raise LoadError(f"no WebSocket: {error}") from None
        page = self._pages[seat.number] = Page(client, generator, seat, self._tenant, secret)
        await page.join()

    async def receive(self, generator: Generator, seat: Seat) -> None:
        """Wait until they have sections for everybody whom they receive.

        Raises:
            LoadError: In vain.
        """
        await self._pages[seat.number].receive()

    def check(self) -> None:
        """See whether everybody is still there.

        Raises:
            LoadError: The server has closed somebody's WebSocket.
        """
        if lost := sum(page.lost for page in self._pages.values()):
            raise LoadError(f"the server has closed {lost} of {len(self._pages)} WebSockets")

    def close(self) -> None:
        """Close all WebSockets."""
        for page in self._pages.values():
            page.close()


class Served:
    """One server in the lab.

    Args:
        lab: Where.
        folder: For its data.
        core: Which it may use, with all its threads.
    """

    name = "colloque"

    def __init__(self, lab: Lab, folder: Path, core: int) -> None:
        self._lab = lab
        self._folder = folder
        self._core = core

    async def start(self) -> None:
        """Start it, with a clinic."""
        settings: dict[str, Any] = {
            "data_dir": self._folder,
            "http": {"port": _PORT} | NO_LIMITS["http"],
            "media": {"addresses": SERVER_IP, "bind": SERVER_IP} | NO_LIMITS["media"],
            "log": {"level": "warning"},
        }
        self._store = await Store.open(f"sqlite+aiosqlite:///{self._folder / 'colloque.db'}")
        await self._store.create_tenant(Tenant(_TENANT, "Benchmark"))
        self._log = (self._folder / "log").open("wb")
        argv = [sys.executable, "-m", "server", "serve"]
        env = os.environ | environment_of(settings) | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        self._process = self._lab.spawn(argv, self._core, self._log, env=env)
        self._rooms = Rooms(self._store, _TENANT, _PORT, self._lab.server_side)
        for _ in range(10 * _READY_S):
            await asyncio.sleep(0.1)
            if await self._answers():
                return
            if self._process.poll() is not None:
                break
        said = self._said()
        await self.stop()
        raise LoadError(f"the server did not start: {said}")

    async def stop(self) -> None:
        """End it."""
        self._rooms.close()
        stop(self._process)
        await self._store.close()
        self._log.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def join(self, generator: Generator, seat: Seat) -> None:
        """Let somebody join; see `Rooms`."""
        await self._rooms.join(generator, seat)

    async def receive(self, generator: Generator, seat: Seat) -> None:
        """See `Rooms`."""
        await self._rooms.receive(generator, seat)

    def check(self) -> None:
        """See whether it runs and has lost nobody.

        Raises:
            LoadError: It has.
        """
        if self._process.poll() is not None:
            raise LoadError(f"the server ended: {self._said()}")
        self._rooms.check()

    async def _answers(self) -> bool:
        """Whether it is ready, which it is before it listens; the socket that asks is closed without a word."""
        try:
            client = await connect(_PORT, "/ws", f"http://127.0.0.1:{_PORT}", within=self._lab.server_side())
        except (WebSocketError, OSError):
            return False
        client.close()
        return True

    def _said(self) -> str:
        return (self._folder / "log").read_text()[-1500:]
