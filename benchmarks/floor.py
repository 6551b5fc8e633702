"""The floor: a process that forwards datagrams and does nothing else (floor_relay.c), played like a server. [IO]"""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from benchmarks.lab import FIRST_LOAD_IP, SERVER_IP, Lab, stop
from benchmarks.scenario import Scenario, Seat, add_media
from loadtest.generator import Generator, LoadError
from loadtest.sdp import OFFERED, PAYLOAD_TYPES, Section

_PORT = 10_000
_KEY = bytes(28)
_GCM = 7


class Floor:
    """One process of it in the lab. It negotiates nothing: all use one key, and its table is made beforehand.

    Args:
        lab: Where.
        folder: For the compiled program.
        core: Which it may use.
        scenario, rooms: What is to be played.
    """

    name = "floor"

    def __init__(self, lab: Lab, folder: Path, core: int, scenario: Scenario, rooms: int) -> None:
        self._lab = lab
        self._core = core
        self._program = folder / "floor_relay"
        self._process: subprocess.Popen[bytes] | None = None
        self._seats = [seat for room in scenario.seats(rooms) for seat in room]

    async def start(self) -> None:
        """Compile it; it is started with the first who joins, when the load's port is known."""
        source = Path(__file__).with_name("floor_relay.c")
        built = await asyncio.create_subprocess_exec("cc", "-O2", "-Wall", "-Wextra", "-o", self._program, source)
        if await built.wait():
            raise RuntimeError("the floor does not compile")

    async def stop(self) -> None:
        """End it."""
        if self._process:
            stop(self._process)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process
        return self._process.pid

    def check(self) -> None:
        """See whether it runs.

        Raises:
            LoadError: It has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            raise LoadError("the floor has ended")

    async def join(self, generator: Generator, seat: Seat) -> None:
        """Give a seat its leg. Seats join in order, so that leg and seat have the same number."""
        local = generator.open_leg()
        if self._process is None:
            self._begin(local.port)
        generator.engine.set_remote(local.leg, SERVER_IP, _PORT)
        generator.engine.set_keys(local.leg, _GCM, _KEY, _KEY)
        if seat.publishes:
            for kind, mid in (("audio", "0"), ("video", "1")):
                section = Section(
                    "audio" if kind == "audio" else "video", mid, "sendonly", None, PAYLOAD_TYPES[kind], OFFERED
                )
                add_media(generator, local.leg, seat, section)

    async def receive(self, generator: Generator, seat: Seat) -> None:
        """Nothing to do: the table says it."""

    def _begin(self, port: int) -> None:
        argv = [str(self._program), SERVER_IP, str(_PORT), FIRST_LOAD_IP, str(port)]
        self._process = self._lab.spawn(argv, self._core, subprocess.PIPE, subprocess.PIPE)
        receivers: list[list[str]] = [[] for _ in self._seats]
        for seat in self._seats:
            for other in seat.receives:
                receivers[other.number].append(str(seat.number))
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("".join(" ".join(row) + "\n" for row in receivers).encode())
        self._process.stdin.close()
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the floor does not start")
