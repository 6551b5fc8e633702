"""A WebSocket client that costs next to nothing, so that the server is what is measured. [IO]

One `asyncio.Protocol` on a bare socket: frames are masked with a key of zeros (RFC 6455 section 5.3 lets the client
choose), so that a payload is sent as it is, and a batch can be made once and written again and again. Text frames only,
none of them fragmented, which is what our server sends.
"""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

PING = b'{"type":"ping"'
_LENGTH_16 = struct.Struct("!H")
_LENGTH_64 = struct.Struct("!Q")


class WebSocketError(Exception):
    """The server did not accept the connection, or closed it."""


def frame(payload: bytes) -> bytes:
    """Return a masked text frame, the mask being zero."""
    length = len(payload)
    if length < 126:
        head = bytes((0x81, 0x80 | length))
    elif length < 65_536:
        head = bytes((0x81, 0x80 | 126)) + _LENGTH_16.pack(length)
    else:
        head = bytes((0x81, 0x80 | 127)) + _LENGTH_64.pack(length)
    return head + b"\0\0\0\0" + payload


_PONG = frame(b'{"type":"pong"}')


class Client(asyncio.Protocol):
    """One connection. `on_message` gets each text payload except pings, which are answered here.

    Args:
        request: The HTTP request that opens it (`upgrade`).
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self._open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pings = 0
        self.on_message: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is not registered as one
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if not self.opened.done():
            self.opened.set_exception(WebSocketError(f"refused: {self._buffer[:200]!r}"))
        if not self.lost.done():
            self.lost.set_result(None)

    def send(self, payload: bytes) -> None:
        """Send one text message."""
        self.transport.write(frame(payload))

    def send_frames(self, frames: bytes) -> None:
        """Send frames that were made before."""
        self.transport.write(frames)

    def close(self) -> None:
        """Go away without a word."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take the answer to the upgrade, then frames."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        if not self._open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                self._buffer = buffer
                self.transport.abort()
                return
            self._open = True
            self.opened.set_result(None)
            at = end + 4
        size = len(buffer)
        while size - at >= 2:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, start = _LENGTH_16.unpack_from(buffer, at + 2)[0], at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length, start = _LENGTH_64.unpack_from(buffer, at + 2)[0], at + 10
            if size - start < length:
                break
            if buffer[at] == 0x81:
                if buffer.startswith(PING, start):
                    self.pings += 1
                    self.transport.write(_PONG)
                else:
                    self.on_message(buffer[start : start + length])
            at = start + length
        self._buffer = buffer[at:]


def upgrade(host: str, path: str, origin: str) -> bytes:
    """Return the request that opens a WebSocket (RFC 6455 section 4.1)."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: {origin}\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def connect(
    port: int,
    path: str,
    origin: str,
    source: str = "127.0.0.1",
    within: AbstractContextManager[None] | None = None,
) -> Client:
    """Open a WebSocket to 127.0.0.1.

    Args:
        port: Of the server.
        path: With query.
        origin: The Origin header; the host name in it is the Host header too.
        source: Our own loopback address: each has ports of its own.
        within: Where the socket is made, such as the server's network namespace.

    Raises:
        WebSocketError: Refused.
    """
    request = upgrade(origin.partition("://")[2], path, origin)
    loop = asyncio.get_running_loop()
    with within or nullcontext():
        made = socket.socket()
    made.setblocking(False)
    try:
        made.bind((source, 0))
        await loop.sock_connect(made, ("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    _, client = await loop.create_connection(lambda: Client(request), sock=made)
    await client.opened
    return client


def allow_files(count: int) -> None:
    """Let this process and the servers it starts hold that many files each.

    Raises:
        RuntimeError: The system does not allow that many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise RuntimeError(
            f"{count} open files are needed and {hard} allowed: raise `ulimit -Hn`, or play fewer people"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
