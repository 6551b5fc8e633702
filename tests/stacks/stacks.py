"""Other WebRTC stacks as WHIP and WHEP clients, each in a process of its own. [IO]

async with gstreamer("publish", url, token) as peer:
    await peer.until(video=20, audio=50)
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

_HERE = Path(__file__).parent
_BUILD = _HERE.parents[1] / "build" / "stacks"
PATIENCE_S = 40.0
WIDTH, HEIGHT, FRAME_RATE = 320, 180, 15


class Peer:
    """A child that tells each second how many frames it has sent or received."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.counts = {"video": 0, "audio": 0}

    async def until(self, *, video: int, audio: int) -> None:
        """Wait until it has so many.

        Raises:
            AssertionError: It ended, or took too long; says what it had, and what it said.
        """
        assert self._process.stdout is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while line := await self._process.stdout.readline():
                    if not line.startswith(b"{"):
                        continue  # libraries talk too
                    self.counts = json.loads(line)
                    if self.counts["video"] >= video and self.counts["audio"] >= audio:
                        return
        raise AssertionError(f"only {self.counts}: {await self._complaints()}")

    async def _complaints(self) -> str:
        assert self._process.stderr is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        return (await self._process.stderr.read()).decode()[-3000:]


@asynccontextmanager
async def _running(*argv: str | Path) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(
        *map(str, argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Peer(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def gstreamer(mode: str, url: str, token: str) -> AsyncIterator[Peer]:
    """Run webrtcbin, with an RSA certificate as is its habit."""
    async with _running("/usr/bin/python3", _HERE / "gstreamer_peer.py", mode, url, token) as peer:
        yield peer


@asynccontextmanager
async def pion(mode: str, url: str, token: str) -> AsyncIterator[Peer]:
    """Run Pion."""
    async with _running(_pion_program(), mode, url, token, _film()) as peer:
        yield peer


@asynccontextmanager
async def ffmpeg(mode: str, url: str, token: str) -> AsyncIterator[Peer]:
    """Run FFmpeg's WHIP muxer, which publishes H.264 and Opus."""
    assert mode == "publish"
    async with _running(sys.executable, _HERE / "ffmpeg_peer.py", url, token, *_certificate()) as peer:
        yield peer


@cache
def _pion_program() -> Path:
    """Compile it, from Debian's packages alone."""
    source = _BUILD / "go" / "src" / "pionpeer"
    source.mkdir(parents=True, exist_ok=True)
    (source / "go.mod").write_text("module pionpeer\n")  # "v3" in import paths is no folder then
    (source / "main.go").write_text((_HERE / "pion" / "main.go").read_text())
    program = _BUILD / "pion"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{_BUILD / 'go'}:/usr/share/gocode", "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", program, "."], cwd=source, env=environment, check=True)
    return program


@cache
def _film() -> Path:
    """Make a film of four seconds of VP8."""
    path = _BUILD / "film.ivf"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libvpx", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, FRAME_RATE)
        stream.options = {"g": str(FRAME_RATE), "deadline": "realtime"}
        for number in range(4 * FRAME_RATE):
            picture = np.full((HEIGHT, WIDTH, 3), number * 4 % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture)):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)
    return path


@cache
def _certificate() -> tuple[Path, Path]:
    """Make one for FFmpeg: its own has a curve that DTLS peers refuse."""
    certificate, key = _BUILD / "peer.crt", _BUILD / "peer.key"
    _BUILD.mkdir(parents=True, exist_ok=True)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=peer", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return certificate, key
