"""The whole server, `colloque serve`, played through WHIP and WHEP. [IO]"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.lab import SERVER_IP, Lab, stop
from benchmarks.scenario import Seat, add_media
from loadtest import sdp
from loadtest.generator import Generator, LoadError
from server.media.parameters import Endpoint
from server.records import RoomRecord, Tenant
from server.store import Store
from tests.live import environment_of

_PORT = 8080
_TENANT = "benchmark"
_MANY = 1_000_000_000
_READY_S = 20


class Served:
    """One server in the lab. A participant publishes on one connection and receives on another, as devices do.

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
        self._rooms: dict[int, RoomRecord] = {}
        self._secrets: dict[int, str] = {}
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start it, with a clinic, and without the limits per address: one address plays everybody."""
        settings: dict[str, Any] = {
            "data_dir": self._folder,
            "http": {
                "port": _PORT, "max_connections_per_address": _MANY, "max_joins_per_address_per_minute": _MANY
            },
            "media": {"addresses": SERVER_IP, "bind": SERVER_IP, "workers": 1, "max_in_conversation": 1000},
            "log": {"level": "warning"},
        }  # fmt: skip
        self._store = await Store.open(f"sqlite+aiosqlite:///{self._folder / 'colloque.db'}")
        await self._store.create_tenant(Tenant(_TENANT, "Benchmark"))
        self._log = (self._folder / "log").open("wb")
        argv = [sys.executable, "-m", "server", "serve"]
        env = os.environ | environment_of(settings) | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        self._process = self._lab.spawn(argv, self._core, self._log, env=env)
        connector = aiohttp.TCPConnector(limit=0, socket_factory=self._socket)
        self._http = aiohttp.ClientSession(f"http://127.0.0.1:{_PORT}", connector=connector)
        for _ in range(10 * _READY_S):
            await asyncio.sleep(0.1)
            try:
                async with self._http.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                continue
        raise LoadError(f"the server did not start: {(self._folder / 'log').read_text()[-1500:]}")

    def _socket(self, found: tuple[Any, ...]) -> socket.socket:
        with self._lab.server_side():
            made = socket.socket(found[0], found[1], found[2])
        made.setblocking(False)
        return made

    async def stop(self) -> None:
        """End it."""
        await self._http.close()
        stop(self._process)
        await self._store.close()
        self._log.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def join(self, generator: Generator, seat: Seat) -> None:
        """Give somebody a link, and let them publish with it."""
        async with self._turn:
            if seat.room not in self._rooms:
                self._rooms[seat.room] = await self._store.create_room(_TENANT, f"{seat.room}")
        _, self._secrets[seat.number] = await self._store.mint_link(self._rooms[seat.room], "clinician")
        if not seat.publishes:
            return
        sections = [
            sdp.Section("audio", "0", "sendonly", seat.ssrc("audio"), 0, sdp.OFFERED),
            sdp.Section("video", "1", "sendonly", seat.ssrc("video"), 0, sdp.OFFERED),
        ]
        leg, answered = await self._open(generator, seat, "whip", sections)
        for section in answered.sections:
            add_media(generator, leg, seat, section)

    async def receive(self, generator: Generator, seat: Seat) -> None:
        """Let them watch everybody else."""
        if not seat.receives:
            return
        kinds = ("audio", "video") * len(seat.receives)
        sections = [
            sdp.Section("audio" if kind == "audio" else "video", str(mid), "recvonly", None, 0, sdp.OFFERED)
            for mid, kind in enumerate(kinds)
        ]
        leg, answered = await self._open(generator, seat, "whep", sections)
        wide = next((s.extensions["wide"] for s in answered.sections if "wide" in s.extensions), 0)
        if wide:
            generator.engine.set_feedback(leg, wide)

    async def _open(
        self, generator: Generator, seat: Seat, kind: str, sections: list[sdp.Section]
    ) -> tuple[int, sdp.Description]:
        local = generator.open_leg()
        offer = sdp.write(local.ice, local.dtls, Endpoint(local.ip, local.port), sections)
        headers = {"Authorization": f"Bearer {self._secrets[seat.number]}", "Content-Type": "application/sdp"}
        path = f"/{kind}/{self._rooms[seat.room].id}"
        async with self._http.post(path, data=offer.encode(), headers=headers) as answer:
            text = await answer.text()
        if answer.status != 201:
            raise LoadError(f"{kind}: {answer.status} {text}")
        answered = sdp.read(text)
        await generator.connect(local, answered.remote)
        return local.leg, answered
