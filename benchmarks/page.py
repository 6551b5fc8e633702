"""A participant as our pages are one: a link opened over the WebSocket, and one connection for both directions. [IO]

    hello ─> welcome ─> join ─> relayWanted ─> offer ─> answer ─> ICE and DTLS (generator.py) ─> media
                                     └─ again, when others publish ─> offer with more sections ─> answer

What a page would show is left out: it decodes the messages that its connection hangs on, and answers pings.
Driven by: served.py. Spec: server/signalling/PROTOCOL.md, section 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from benchmarks.scenario import Seat, add_media
from benchmarks.wsclient import Client
from loadtest import sdp
from loadtest.generator import Generator, LoadError, Local
from server.ids import new_id
from server.media.parameters import Endpoint
from server.signalling.messages import (
    VERSION,
    Hello,
    Join,
    Message,
    Problem,
    Refused,
    RelayAnswer,
    RelayOffer,
    RelayWanted,
    SessionDescription,
    Welcome,
)

_T = TypeVar("_T")
JOIN_TIMEOUT_S = 20.0
_KINDS: Sequence[sdp.Kind] = ("audio", "video")
_decoder = msgspec.json.Decoder(Welcome | RelayWanted | RelayAnswer | Problem | Refused)
_HEEDED = tuple(
    f'{{"type":"{name}"'.encode() for name in ("welcome", "relayWanted", "relayAnswer", "problem", "refused")
)


class Page:
    """One participant.

    Args:
        client: Their WebSocket, open.
        generator: What plays their connection.
        seat: Whom they receive, and whether they publish.
        tenant, secret: Of their link.
    """

    def __init__(self, client: Client, generator: Generator, seat: Seat, tenant: str, secret: str) -> None:
        self._client = client
        self._generator = generator
        self._seat = seat
        self._tenant = tenant
        self._secret = secret
        self._connection = new_id()
        self._local: Local | None = None
        self._own = [
            sdp.Section(kind, str(mid), "sendonly", seat.ssrc(kind), 0, sdp.OFFERED)
            for mid, kind in enumerate(_KINDS)
            if seat.publishes
        ]
        self._sections = list(self._own)
        loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[sdp.Description] = loop.create_future()
        self._complete: asyncio.Future[None] = loop.create_future()
        client.on_message = self._receive

    async def join(self) -> None:
        """Enter the conversation, connect to the media server, and be ready to publish.

        Raises:
            LoadError: It did not come about within 20 s.
        """
        self._send(Hello(version=VERSION, tenant=self._tenant, instance=new_id(), secret=self._secret))
        answered = await self._await(self._answered, "no answer")
        assert self._local
        await self._generator.connect(self._local, answered.remote)
        leg, own = self._local.leg, {section.mid for section in self._own}
        for section in answered.sections:
            if section.mid in own:
                add_media(self._generator, leg, self._seat, section)
        wide = next((s.extensions["wide"] for s in answered.sections if "wide" in s.extensions), 0)
        if wide and self._seat.receives:
            self._generator.engine.set_feedback(leg, wide)

    async def receive(self) -> None:
        """Wait until there are sections for everybody whom the seat receives.

        Raises:
            LoadError: There were not within 20 s.
        """
        if self._seat.receives:
            await self._await(self._complete, "not everybody is received")

    @property
    def lost(self) -> bool:
        """Whether the server has closed the WebSocket."""
        return self._client.lost.done()

    def close(self) -> None:
        """Go away without a word."""
        self._client.close()

    async def _await(self, future: asyncio.Future[_T], otherwise: str) -> _T:
        try:
            return await asyncio.wait_for(asyncio.shield(future), JOIN_TIMEOUT_S)
        except TimeoutError:
            raise LoadError(f"{otherwise} within {JOIN_TIMEOUT_S:g} s") from None

    def _send(self, message: Message) -> None:
        self._client.send(msgspec.json.encode(message))

    def _receive(self, payload: bytes) -> None:
        if not payload.startswith(_HEEDED):
            return
        match _decoder.decode(payload):
            case Welcome():
                self._send(Join())
            case RelayWanted() as wanted:
                self._offer(max(wanted.audio, wanted.video))
            case RelayAnswer() as answer:
                self._take(answer)
            case Problem(code=code) | Refused(code=code):
                for future in (self._answered, self._complete):
                    if not future.done():
                        future.set_exception(LoadError(f"signalling: {code}"))
                        future.exception()  # may never be awaited

    def _offer(self, pairs: int) -> None:
        """Offer as `web/static/js/rtc/relay.js` does: our own sections first, then receiving ones in pairs.

        In a fan-out, larger than any room of pages, there are no sections for those who never publish.
        """
        if self._local is None:
            self._local = self._generator.open_leg()
        if not self._own:
            pairs = max(pairs, 1)  # an offer needs a section
        for number in range(len(self._sections) - len(self._own), 2 * min(pairs, len(self._seat.receives))):
            mid = str(len(self._own) + number)
            self._sections.append(sdp.Section(_KINDS[number % 2], mid, "recvonly", None, 0, sdp.OFFERED))
        local = self._local
        text = sdp.write(local.ice, local.dtls, Endpoint(local.ip, local.port), self._sections)
        self._send(RelayOffer(connection=self._connection, description=SessionDescription(type="offer", sdp=text)))

    def _take(self, answer: RelayAnswer) -> None:
        if not self._answered.done():
            self._answered.set_result(sdp.read(answer.description.sdp))
        if len(answer.sections) >= 2 * len(self._seat.receives) and not self._complete.done():
            self._complete.set_result(None)
