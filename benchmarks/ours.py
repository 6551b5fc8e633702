"""Our media plane as a server to be played: started in the lab, told over its socket (media_server.py). [IO]"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.lab import SERVER_IP, Lab, stop
from benchmarks.scenario import Seat, add_media
from loadtest.connection import Remote
from loadtest.generator import Generator, LoadError
from loadtest.sdp import OFFERED, PAYLOAD_TYPES, Section
from server.media.parameters import DtlsParameters, Endpoint, Fingerprint, IceParameters


class Ours:
    """One process of it. A participant has one connection for both directions, as our pages have it.

    Args:
        lab: Where.
        folder: For its socket.
        core: Which it may use, with all its threads.
    """

    name = "colloque"

    def __init__(self, lab: Lab, folder: Path, core: int) -> None:
        self._lab = lab
        self._folder = folder
        self._core = core
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start it."""
        path = self._folder / "media.sock"
        self._log = (self._folder / "media.log").open("wb")
        argv = [sys.executable, "-m", "benchmarks.media_server", str(path), SERVER_IP]
        self._process = self._lab.spawn(argv, self._core, self._log)
        for _ in range(100):
            try:
                self._reader, self._writer = await asyncio.open_unix_connection(str(path))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.1)
        raise LoadError(f"the media server did not start: {(self._folder / 'media.log').read_text()[-1500:]}")

    async def stop(self) -> None:
        """End it."""
        self._writer.close()
        stop(self._process)
        self._log.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def join(self, generator: Generator, seat: Seat) -> None:
        """Let somebody in, sending and receiving at once."""
        local = generator.open_leg()
        publish = [Section("audio", "0"), Section("video", "1")] if seat.publishes else []
        for section in publish:
            section.payload_type, section.extensions = PAYLOAD_TYPES[section.kind], OFFERED
        answer = await self._ask(
            {
                "id": f"p{seat.number}",
                "room": f"room{seat.room}",
                "participant": f"p{seat.number}",
                "ufrag": local.ice.ufrag,
                "pwd": local.ice.pwd,
                "fingerprint": local.dtls.fingerprints[0].value,
                "publish": [{"mid": s.mid, "kind": s.kind, "ssrc": seat.ssrc(s.kind)} for s in publish],
                "subscribe": [
                    {"mid": f"{2 + 2 * i + j}", "kind": kind, "source": f"p{other.number}:{j}"}
                    for i, other in enumerate(seat.receives)
                    for j, kind in enumerate(("audio", "video"))
                ],
            }
        )
        ice = IceParameters(answer["ufrag"], answer["pwd"])
        dtls = DtlsParameters((Fingerprint("sha-256", answer["fingerprint"]),), "server")
        await generator.connect(local, Remote(ice, dtls, Endpoint(answer["ip"], answer["port"])))
        for section in publish:
            add_media(generator, local.leg, seat, section)
        if seat.receives:
            generator.engine.set_feedback(local.leg, OFFERED["wide"])

    async def receive(self, generator: Generator, seat: Seat) -> None:
        """They do so already."""

    async def statistics(self) -> dict[str, float]:
        """Return what the media plane counts."""
        return await self._ask({})

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            self._writer.write(json.dumps(request).encode() + b"\n")
            line = await self._reader.readline()
        if not line:
            raise LoadError(f"the media server ended: {(self._folder / 'media.log').read_text()[-1500:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
