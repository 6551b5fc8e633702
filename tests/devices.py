"""Devices over WHIP and WHEP with real ICE, DTLS and SRTP, light enough to come and go by the hundred. [IO]

    with Generator(bound_socket(), "127.78.0.1") as generator:
        devices = Devices(live, http, generator)
        camera = await devices.publish(room, secret)
        viewer = await devices.watch(room, other_secret)
        generator.engine.media_on = True
        ...
        await devices.end(camera)

The packets are the load generator's (loadtest/): VP8 and Opus as far as headers tell. The server must announce
127.0.0.1, as `LOOPBACK` says.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import aiohttp
import ifaddr

from loadtest import sdp
from loadtest.generator import Generator
from server.media.parameters import Endpoint
from server.records import RoomRecord
from tests.live import Live

LOOPBACK: dict[str, Any] = {"addresses": "127.0.0.1", "bind": "127.0.0.1"}
"""The `[media]` section."""
MANY: dict[str, Any] = {"max_connections_per_address": 1_000_000, "max_joins_per_address_per_minute": 1_000_000}
"""The `[http]` section, for one address that plays everybody."""


def own_ip() -> str:
    """Return an IPv4 address of this machine that is not loopback: what browsers and most stacks send media to."""
    found = [entry.ip for adapter in ifaddr.get_adapters() for entry in adapter.ips if isinstance(entry.ip, str)]
    return next(ip for ip in found if not ip.startswith("127."))


@dataclass(frozen=True)
class Device:
    """One resource of WHIP or WHEP."""

    location: str
    token: str
    leg: int
    answer: sdp.Description


class Devices:
    """Makes them, on one server."""

    _ssrcs = itertools.count(0x20000000)

    def __init__(self, live: Live, http: aiohttp.ClientSession, generator: Generator) -> None:
        self._live = live
        self._http = http
        self._generator = generator

    async def token(self, room: RoomRecord) -> str:
        """Make a clinician's link; return its secret."""
        return (await self._live.link(room, "clinician")).partition("#")[2]

    async def publish(self, room: RoomRecord, token: str) -> Device:
        """Connect a camera and a microphone; they send as soon as the engine's `media_on` says so."""
        sections = [
            sdp.Section("audio", "0", "sendonly", next(self._ssrcs), 0, sdp.OFFERED),
            sdp.Section("video", "1", "sendonly", next(self._ssrcs), 0, sdp.OFFERED),
        ]
        device = await self._open("whip", room, token, sections)
        for offered, answered in zip(sections, device.answer.sections, strict=True):
            assert offered.ssrc is not None
            ids = {f"{name}_id": answered.extensions.get(name, 0) for name in ("mid", "wide", "sent", "level")}
            self._generator.engine.add_sender(
                device.leg,
                offered.ssrc,
                answered.payload_type,
                offered.kind == "video",
                mid=offered.mid.encode(),
                **ids,
            )
        return device

    async def watch(self, room: RoomRecord, token: str, pairs: int = 1) -> Device:
        """Connect a viewer of so many others."""
        sections = [
            sdp.Section("video" if mid % 2 else "audio", str(mid), "recvonly", None, 0, sdp.OFFERED)
            for mid in range(2 * pairs)
        ]
        return await self._open("whep", room, token, sections)

    async def end(self, device: Device) -> None:
        """DELETE it."""
        async with self._http.delete(device.location, headers={"Authorization": f"Bearer {device.token}"}) as answer:
            assert answer.status == 200, await answer.text()

    async def _open(self, kind: str, room: RoomRecord, token: str, sections: list[sdp.Section]) -> Device:
        local = self._generator.open_leg()
        offer = sdp.write(local.ice, local.dtls, Endpoint(local.ip, local.port), sections)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
        async with self._http.post(f"/{kind}/{room.id}", data=offer.encode(), headers=headers) as answer:
            text = await answer.text()
            assert answer.status == 201, text
            location = answer.headers["Location"]
        described = sdp.read(text)
        await self._generator.connect(local, described.remote)
        return Device(location, token, local.leg, described)

    async def until_received(self, device: Device, more: int = 1) -> None:
        """Wait until so many more packets of media have arrived there."""
        before = self.received(device)
        async with asyncio.timeout(20):
            while self.received(device) < before + more:  # noqa: ASYNC110  (the engine is a thread that tells nobody)
                await asyncio.sleep(0.005)

    def received(self, device: Device) -> int:
        """How many packets of media have arrived there so far."""
        return sum(received for leg, _, received, _ in self._generator.engine.streams() if leg == device.leg)
