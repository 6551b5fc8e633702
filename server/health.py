"""What machines ask: is it alive, may it get work, how is it. [IO]

    /healthz   200 while the event loop turns: restart the process when it does not answer
    /readyz    200 when the store answers and we are not draining, 503 otherwise: route work by it
    /metrics   for Prometheus (see `http.metrics_token` for who may)

None of them says anything about anybody.
"""

from __future__ import annotations

import hmac
import ipaddress

from aiohttp import hdrs, web

from server.config import HttpConfig
from server.metrics import CONTENT_TYPE, Metrics
from server.store import Store

_FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


class Health:
    """The three routes, and the flag that takes the server out of rotation.

    Attributes:
        draining: Set at the first SIGTERM or Ctrl-C.
    """

    def __init__(self, config: HttpConfig, store: Store, metrics: Metrics) -> None:
        self.draining = False
        self._config = config
        self._store = store
        self._metrics = metrics

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes, for `Application.add_routes`."""
        return [
            web.get("/healthz", self.alive),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def alive(self, _request: web.Request) -> web.Response:
        """GET /healthz."""
        return web.Response(text="alive\n")

    async def ready(self, _request: web.Request) -> web.Response:
        """GET /readyz."""
        if self.draining:
            return web.Response(status=503, text="draining\n")
        if not await self._store.ready():
            return web.Response(status=503, text="the store does not answer\n")
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics; like any page that does not exist for those who may not."""
        if not self._may_scrape(request):
            raise web.HTTPNotFound
        return web.Response(body=self._metrics.exposition(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    def _may_scrape(self, request: web.Request) -> bool:
        token = self._config.metrics_token
        if token:
            given = request.headers.get(hdrs.AUTHORIZATION, "")
            return hmac.compare_digest(given.encode(errors="surrogateescape"), f"Bearer {token}".encode())
        if self._config.public_url or any(name in request.headers for name in _FORWARDING_HEADERS):
            return False
        return ipaddress.ip_address((request.remote or "0.0.0.0").partition("%")[0]).is_loopback
