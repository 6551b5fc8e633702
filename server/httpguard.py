"""What one stranger may hold open: time for a request, and connections per address. [IO]

`Guard` makes the protocol object of each TCP connection, between the listening socket and aiohttp:

    socket -> Guard (count per address) -> aiohttp.web.RequestHandler -> `whole_bodies` middleware -> handlers

* A request head that is not complete `header_timeout_s` after the connection opened, or after the answer before it,
  closes the connection, as does idle keep-alive. aiohttp has no header timeout by that name: its `keepalive_timeout`
  counts from the opening of the connection and is not moved by bytes that do not complete a head (3.14), which is just
  that. pyproject.toml pins the minor version and `tests/server/test_httpguard.py` holds it to the behaviour; no private
  name of aiohttp is read.
* A TLS handshake gets the same time (`listen`), a request body too (`whole_bodies`), counted from its head.
* One address has at most `max_connections_per_address` connections, an IPv6 /64 counting as one. Trusted proxies are
  not counted: they speak for everybody, and have limits of their own. A connection counts once its handshake is done.

Spec: SECURITY row 15. Cost: one dictionary entry per address with an open connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from server.config import HttpConfig
from server.metrics import Metrics
from server.redact import describe

_LINGER_S = 1.0
"""After an answer that did not wait for the whole body, so that the client can read the answer before a reset."""

_log = structlog.get_logger()


class Proxies:
    """The reverse proxies whose X-Forwarded-For is believed.

    Args:
        networks: Addresses or networks, IPv4 or IPv6, as `http.trusted_proxies`.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def trusts(self, address: str) -> bool:
        """Say whether a connection from this address comes from one of them."""
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded_for: str) -> str:
        """Return the client's address: the nearest one that is not a trusted proxy's.

        Args:
            peer: The other end of the TCP connection.
            forwarded_for: The X-Forwarded-For header, "" without one. Each proxy appends the address it saw, so it is
                read from the right, and what an untrusted client wrote on the left is never reached.
        """
        hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
        while hops and self.trusts(peer) and _parse(hops[-1]) is not None:
            peer = hops.pop()
        return peer


def client_block(address: str) -> str:
    """Return what one subscriber holds: the IPv4 address, or the IPv6 /64 that any of their devices draws from."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed or address)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


class Guard:
    """Makes and counts the connections of one server.

    Args:
        server: What answers their requests, from `AppRunner.server`.
        config: The bounds.
        error_headers: Headers of the answers that never reach the application (a malformed request).
    """

    def __init__(self, server: web.Server, config: HttpConfig, metrics: Metrics, error_headers: dict[str, str]) -> None:
        self.server = server
        self.metrics = metrics
        self.error_headers = error_headers
        self._timeout_s = config.header_timeout_s
        self._limit = config.max_connections_per_address
        self._proxies = Proxies(config.trusted_proxies)
        self._open: Counter[str] = Counter()

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """Accept connections on a bound socket."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: _Connection(
                self,
                loop=loop,
                keepalive_timeout=self._timeout_s,
                lingering_time=_LINGER_S,
                access_log=None,
            ),
            sock=listener,
            ssl=tls,
            ssl_handshake_timeout=self._timeout_s if tls else None,
            backlog=1024,
        )

    def take(self, address: str) -> str | None:
        """Count a connection; return what to give back in `release`, "" for a proxy, None when it is one too many."""
        if self._proxies.trusts(address):
            return ""
        block = client_block(address)
        if self._open[block] >= self._limit:
            self.metrics.connections_refused.inc()
            return None
        self._open[block] += 1
        return block

    def release(self, block: str) -> None:
        """A counted connection is closed."""
        self._open[block] -= 1
        if self._open[block] <= 0:
            del self._open[block]


class _Connection(web.RequestHandler):
    """One TCP connection: aiohttp's own handler, counted, and silent about addresses."""

    __slots__ = ("_block", "_guard")

    def __init__(self, guard: Guard, **options: Any) -> None:
        super().__init__(guard.server, **options)
        self._guard = guard
        self._block: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._block = self._guard.take(peer[0] if peer else "")
        if self._block is None:
            cast(asyncio.Transport, transport).abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._block is None:
            return
        if self._block:
            self._guard.release(self._block)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that the application never saw or could not answer: the status, and nothing it contained."""
        if status >= 500 and exc is not None:
            _log.error("http.failed", **describe(exc))
        self._guard.metrics.http_requests.labels(route="malformed", status=f"{status // 100}xx").inc()
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        answer = web.Response(status=status, text=HTTPStatus(status).phrase, headers=self._guard.error_headers)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Aiohttp's arguments hold addresses and request lines; keep the exception's type and place."""
        error = kw.get("exc_info")
        _log.error("http.failed", **(describe(error) if isinstance(error, BaseException) else {}))


def whole_bodies(timeout_s: float) -> Middleware:
    """Return a middleware that has the whole request body before the handler runs.

    It has to come within the time and within `client_max_size`. Too slow is answered 408, too large 413. Our bodies are
    small JSON documents and one logo; nothing streams in.
    """

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.body_exists:
            try:
                async with asyncio.timeout(timeout_s):
                    await request.read()
            except TimeoutError:
                late = web.HTTPRequestTimeout()
                late.force_close()
                raise late from None
            except web.RequestPayloadError:
                raise web.HTTPBadRequest from None
        return await handler(request)

    return middleware
