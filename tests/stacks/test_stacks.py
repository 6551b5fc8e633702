"""Other stacks through WHIP and WHEP, with real media both ways. `make test-interop`: not part of `make test`.

What a stack publishes, aiortc decodes; what aiortc publishes, the stack receives and counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from server.records import RoomRecord
from tests.devices import MANY, own_ip
from tests.live import Live, live_server
from tests.stacks.stacks import PATIENCE_S, Peer, ffmpeg, gstreamer, pion

pytestmark = pytest.mark.timeout(180)

Stack = Callable[[str, str, str], AbstractAsyncContextManager[Peer]]
FRAMES, SOUNDS = 30, 100


class Clinic:
    """A room, and aiortc as its other participant."""

    def __init__(self, live: Live, room: RoomRecord) -> None:
        self._live = live
        self._room = room

    def url(self, kind: str) -> str:
        """Where WHIP or WHEP is."""
        return f"{self._live.origin}/{kind}/{self._room.id}"

    async def token(self) -> str:
        """Make one more clinician's link."""
        return (await self._live.link(self._room, "clinician")).partition("#")[2]

    @asynccontextmanager
    async def aiortc(self, kind: str) -> AsyncIterator[RTCPeerConnection]:
        """Publish, or watch."""
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        try:
            if kind == "whip":
                peer.addTrack(AudioStreamTrack())
                peer.addTrack(VideoStreamTrack())
            else:
                for media in ("audio", "video"):
                    peer.addTransceiver(media, direction="recvonly")
            await peer.setLocalDescription(await peer.createOffer())
            headers = {"Authorization": f"Bearer {await self.token()}", "Content-Type": "application/sdp"}
            async with (
                aiohttp.ClientSession() as http,
                http.post(self.url(kind), data=peer.localDescription.sdp.encode(), headers=headers) as answer,
            ):
                assert answer.status == 201, await answer.text()
                await peer.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
            yield peer
        finally:
            await peer.close()


@pytest.fixture
async def clinic() -> AsyncIterator[Clinic]:
    ip = own_ip()
    async with live_server(http=MANY, media={"addresses": ip, "bind": ip}) as live:
        yield Clinic(live, await live.room())
        assert "Traceback" not in live.log


async def decoded(peer: RTCPeerConnection) -> tuple[int, int]:
    """Decode frames of both kinds; return the size of the pictures."""
    size = (0, 0)
    async with asyncio.timeout(PATIENCE_S):
        for receiver in peer.getReceivers():
            for _ in range(FRAMES if receiver.track.kind == "video" else SOUNDS):
                frame = await receiver.track.recv()
                size = (frame.width, frame.height) if receiver.track.kind == "video" else size
    return size


@pytest.mark.parametrize("stack", [gstreamer, pion, ffmpeg], ids=lambda stack: stack.__name__)
async def test_publishes(clinic: Clinic, stack: Stack) -> None:
    async with stack("publish", clinic.url("whip"), await clinic.token()) as peer:
        await peer.until(video=1, audio=1)
        async with clinic.aiortc("whep") as viewer:
            assert await decoded(viewer) == (320, 180)


@pytest.mark.parametrize("stack", [gstreamer, pion], ids=lambda stack: stack.__name__)
async def test_watches(clinic: Clinic, stack: Stack) -> None:
    async with (
        clinic.aiortc("whip"),
        stack("watch", clinic.url("whep"), await clinic.token()) as peer,
    ):
        await peer.until(video=FRAMES, audio=SOUNDS)


async def test_aiortc_publishes_and_watches(clinic: Clinic) -> None:
    async with clinic.aiortc("whip"), clinic.aiortc("whep") as viewer:
        assert await decoded(viewer) == (640, 480)


async def test_gstreamer_publishes_and_pion_watches(clinic: Clinic) -> None:
    async with (
        gstreamer("publish", clinic.url("whip"), await clinic.token()) as camera,
        clinic.aiortc("whep") as witness,
    ):
        await camera.until(video=1, audio=1)
        await decoded(
            witness
        )  # published: only then can an answer name SSRCs, which Pion needs, as it does not offer mid
        async with pion("watch", clinic.url("whep"), await clinic.token()) as viewer:
            await viewer.until(video=FRAMES, audio=SOUNDS)
