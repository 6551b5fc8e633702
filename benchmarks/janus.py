"""Janus, started with a configuration of its own and played over its Unix socket: rooms of the videoroom plugin. [IO]

Generous where there is a choice: only the plugin and the transport that are used are loaded, it logs errors only, is
ICE-lite, keeps the room's default of no bitrate cap, and gets AES-128-GCM, the cheapest suite that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.lab import SERVER_IP, Lab, stop
from benchmarks.scenario import Seat, add_media
from loadtest import sdp
from loadtest.generator import Generator, LoadError
from server.media.parameters import Endpoint

_PLUGIN = "janus.plugin.videoroom"
_FOLDERS = Path("/usr/lib/x86_64-linux-gnu/janus")
_ANSWER_TIMEOUT_S = 20.0
_ATTEMPTS = 20


class Janus:
    """One Janus process in the lab.

    Args:
        lab: Where.
        folder: For its configuration.
        core: Which it may use.
    """

    name = "janus"

    def __init__(self, lab: Lab, folder: Path, core: int) -> None:
        self._lab = lab
        self._folder = folder
        self._core = core
        self._transactions = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._feeds: dict[int, int] = {}
        self._rooms: set[int] = set()
        self._manager: tuple[int, int] | None = None

    async def start(self) -> None:
        """Configure and start it."""
        path = self._folder / "janus.sock"
        for name, file in (("plugins", "libjanus_videoroom.so"), ("transports", "libjanus_pfunix.so")):
            (self._folder / name).mkdir()
            (self._folder / name / file).symlink_to(_FOLDERS / name / file)
        for name in ("events", "loggers"):
            (self._folder / name).mkdir()
        folders = "".join(f'{name}_folder = "{self._folder / name}"\n' for name in _OWN_FOLDERS)
        (self._folder / "janus.jcfg").write_text(
            f"general: {{\n{folders}debug_level = 2\nsession_timeout = 0\n}}\nnat: {{\nice_lite = true\n}}\n"
            'media: {\nrtp_port_range = "20000-60000"\n}\n'
        )
        (self._folder / "janus.transport.pfunix.jcfg").write_text(
            f'general: {{\nenabled = true\njson = "compact"\npath = "{path}"\ntype = "SOCK_SEQPACKET"\n}}\n'
        )
        (self._folder / "janus.plugin.videoroom.jcfg").write_text("general: {\n}\n")
        self._log = (self._folder / "janus.log").open("wb")
        for _ in range(_ATTEMPTS):
            if await self._begin(path):
                self._manager = await self._attach()
                return
        raise LoadError(f"Janus did not start: {(self._folder / 'janus.log').read_text()[-500:]}")

    async def _begin(self, path: Path) -> bool:
        """Start the process and connect to it. Its Unix socket loses a race with itself now and then: it ends."""
        argv = ["janus", "-F", str(self._folder), "--disable-colors", "-i", SERVER_IP]
        self._process = self._lab.spawn(argv, self._core, self._log, folder=self._folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        for _ in range(100):
            await asyncio.sleep(0.1)
            if self._process.poll() is not None:
                self._socket.close()
                return False
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                self._socket.connect(str(path))
                await asyncio.sleep(0.3)
                if self._process.poll() is None:
                    self._reader = asyncio.create_task(self._read())
                    return True
        stop(self._process)
        return False

    async def stop(self) -> None:
        """End it."""
        if self._reader:
            self._reader.cancel()
        self._socket.close()
        stop(self._process)
        self._log.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def check(self) -> None:
        """See whether it runs.

        Raises:
            LoadError: It has ended.
        """
        if self._process.poll() is not None:
            raise LoadError("Janus has ended")

    async def join(self, generator: Generator, seat: Seat) -> None:
        """Let somebody in: publishing on one connection, receiving on another, as Janus has it."""
        if seat.room not in self._rooms:
            self._rooms.add(seat.room)
            body = {"request": "create", "room": seat.room + 1, "publishers": 100, "notify_joining": False}
            assert self._manager
            await self._message(self._manager, body)
        if seat.publishes:
            await self._publish(generator, seat)

    async def receive(self, generator: Generator, seat: Seat) -> None:
        """Let them receive the others; they are all there by now."""
        if not seat.receives:
            return
        handle = await self._attach()
        streams = [{"feed": self._feeds[other.number]} for other in seat.receives]
        body = {"request": "join", "ptype": "subscriber", "room": seat.room + 1, "streams": streams}
        offered = sdp.read((await self._message(handle, body))["jsep"]["sdp"])
        local = generator.open_leg()
        sections = [
            sdp.Section(s.kind, s.mid, "recvonly", None, s.payload_type, s.extensions) for s in offered.sections
        ]
        answer = sdp.write(local.ice, local.dtls, Endpoint(local.ip, local.port), sections)
        await self._message(handle, {"request": "start"}, {"type": "answer", "sdp": answer})
        await generator.connect(local, offered.remote)
        wide = next((s.extensions["wide"] for s in offered.sections if "wide" in s.extensions), 0)
        if wide:
            generator.engine.set_feedback(local.leg, wide)

    async def _publish(self, generator: Generator, seat: Seat) -> None:
        handle = await self._attach()
        body = {"request": "join", "ptype": "publisher", "room": seat.room + 1}
        joined = await self._message(handle, body)
        self._feeds[seat.number] = joined["plugindata"]["data"]["id"]
        local = generator.open_leg()
        sections = [
            sdp.Section("audio", "0", "sendonly", seat.ssrc("audio"), 0, sdp.OFFERED),
            sdp.Section("video", "1", "sendonly", seat.ssrc("video"), 0, sdp.OFFERED),
        ]
        offer = sdp.write(local.ice, local.dtls, Endpoint(local.ip, local.port), sections)
        answer = await self._message(handle, {"request": "publish"}, {"type": "offer", "sdp": offer})
        answered = sdp.read(answer["jsep"]["sdp"])
        await generator.connect(local, answered.remote)
        for section in answered.sections:
            add_media(generator, local.leg, seat, section)

    # Its API: requests with a transaction, each answered once, or acknowledged and answered later.

    async def _attach(self) -> tuple[int, int]:
        session = (await self._ask({"janus": "create"}))["data"]["id"]
        handle = (await self._ask({"janus": "attach", "session_id": session, "plugin": _PLUGIN}))["data"]["id"]
        return session, handle

    async def _message(
        self, handle: tuple[int, int], body: dict[str, Any], jsep: dict[str, str] | None = None
    ) -> dict[str, Any]:
        request = {"janus": "message", "session_id": handle[0], "handle_id": handle[1], "body": body}
        answer = await self._ask(request | ({"jsep": jsep} if jsep else {}))
        data = answer["plugindata"]["data"]
        if "error" in data:
            raise LoadError(f"Janus: {data['error']}")
        return answer

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        transaction = str(next(self._transactions))
        loop = asyncio.get_running_loop()
        answered = self._waiting[transaction] = loop.create_future()
        await loop.sock_sendall(self._socket, json.dumps(request | {"transaction": transaction}).encode())
        try:
            answer: dict[str, Any] = await asyncio.wait_for(answered, _ANSWER_TIMEOUT_S)
        finally:
            del self._waiting[transaction]
        if answer["janus"] == "error":
            raise LoadError(f"Janus: {answer['error']['reason']}")
        return answer

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._socket, 1 << 18):
            message = json.loads(data)
            answered = self._waiting.get(message.get("transaction", ""))
            if answered and not answered.done() and message["janus"] != "ack":
                answered.set_result(message)


_OWN_FOLDERS = ("plugins", "transports", "events", "loggers")


def version() -> str:
    """Which Janus is installed.

    Raises:
        LoadError: None is.
    """
    try:
        said = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", "janus"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise LoadError("Janus is not installed: ./setup.sh benchmark") from None
    return said.stdout
