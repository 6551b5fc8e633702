"""A participant without a browser: one WebSocket, scripted message by message."""

import asyncio
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from server.ids import new_id
from server.signalling.messages import VERSION
from tests.live import Live

_PATIENCE_S = 10.0


class Participant:
    """What arrives is kept in order; pings are answered at once, as a page does."""

    def __init__(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._http = http
        self.socket = socket
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.welcome: dict[str, Any] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, live: Live, headers: Mapping[str, str] | None = None) -> Self:
        """Open a socket as our own page would; say nothing."""
        http = aiohttp.ClientSession(headers={"Origin": live.origin, **(headers or {})})
        try:
            return cls(http, await http.ws_connect(f"{live.origin}/ws"))
        except BaseException:
            await http.close()
            raise

    @classmethod
    async def arrive(cls, live: Live, url: str, headers: Mapping[str, str] | None = None, **hello: Any) -> Self:
        """Open a link and be welcomed."""
        path, _, secret = url.partition("#")
        tenant = urlsplit(path).path.split("/")[2]
        self = await cls.connect(live, headers)
        await self.send(
            "hello", **{"version": VERSION, "tenant": tenant, "instance": new_id(), "secret": secret} | hello
        )
        self.welcome = await self.next("welcome")
        return self

    @property
    def id(self) -> str:
        """The participant id we were given."""
        return str(self.welcome["id"])

    async def send(self, kind: str, **members: Any) -> None:
        await self.socket.send_json({"type": kind, **members})

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the next message of this type; those before it are dropped."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                message = await self.received.get()
                if message["type"] == kind:
                    return message
                assert message["type"] != "socket closed", f"closed with {message['code']} before {kind}"

    async def closed(self) -> int:
        """Wait until the server closes; return the close code."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._reading
        assert self.socket.close_code is not None
        return self.socket.close_code

    async def close(self) -> None:
        await self.socket.close()
        await self._reading
        await self._http.close()

    async def _read(self) -> None:
        async for frame in self.socket:
            message = frame.json()
            if message["type"] == "ping":
                await self.send("pong")
            else:
                self.received.put_nowait(message)
        self.received.put_nowait({"type": "socket closed", "code": self.socket.close_code})
