"""The composition root: what is built, in which order, and how it ends. [IO]

    build:     store -> TURN -> media -> signalling, WHIP -> pages, API, health -> routes -> background tasks
    a request: httpguard -> `_outcomes` -> `problems` (of programs) -> `whole_bodies` -> handler -> `_on_answer`
    the end:   signalling says "come back" -> requests finish -> background tasks -> media (says goodbye) -> coturn
               -> store (flushed, closed)

A malformed request never gets here (`httpguard.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from server import api, problems
from server.catalogue import Catalogue
from server.clock import wall_now
from server.config import Config
from server.headers import base_headers, static_headers
from server.health import Health
from server.httpguard import whole_bodies
from server.media.worker import MediaPlane
from server.metrics import Metrics
from server.redact import describe
from server.signalling.coturn import Coturn, load_secret
from server.signalling.pages import WEB, Pages
from server.signalling.turn import IceServerSource
from server.signalling.websocket import SignallingEndpoint
from server.signalling.whip import Whip
from server.store import Store

CONFIG = web.AppKey("CONFIG", Config)
STORE = web.AppKey("STORE", Store)
METRICS = web.AppKey("METRICS", Metrics)
ENDPOINT = web.AppKey("ENDPOINT", SignallingEndpoint)
COTURN = web.AppKey("COTURN", Coturn)
"""Only when it is ours to run."""
HEALTH = web.AppKey("HEALTH", Health)

MAX_BODY_BYTES = 256 * 1024
"""Twice the largest thing that anybody sends us: a logo of 100 kB."""
_LAG_SAMPLE_S = 0.5
_PURGE_EVERY_S = 24 * 3600.0
_PURGE_RETRY_S = 600.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = structlog.get_logger()


async def build(config: Config) -> web.Application:
    """Open the store and wire everything; `Application.cleanup` undoes it.

    Args:
        config: With the port that is really listened on, because links and policies are made from it.

    Raises:
        ConfigError: What the settings name cannot be had (a database, a key file).
    """
    async with AsyncExitStack() as stack:
        metrics, catalogue = Metrics(), Catalogue.load()
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = await Store.open(config.store_url)
        stack.push_async_callback(store.close)
        metrics.watch_store(store.statistics)

        turn_secret = load_secret(config)
        ice = IceServerSource(config.turn, turn_secret)
        coturn = Coturn(config, turn_secret, metrics) if config.turn.managed else None
        if coturn is not None:
            stack.push_async_callback(coturn.stop)
            await coturn.start()
        media = _media_plane(config, metrics)
        endpoint = SignallingEndpoint(config, store, ice, catalogue, metrics, media)
        if media is not None:
            media.on_event = endpoint.receive_media_event
            stack.push_async_callback(media.stop)
            await media.start()
        pages = Pages(config.public_origin, store, catalogue)
        health = Health(config.http, store, metrics)

        app = web.Application(
            client_max_size=MAX_BODY_BYTES,
            middlewares=[_outcomes(pages, metrics), problems.middleware, whole_bodies(config.http.header_timeout_s)],
        )
        app[CONFIG], app[STORE], app[METRICS] = config, store, metrics
        app[ENDPOINT], app[HEALTH] = endpoint, health
        if coturn is not None:
            app[COTURN] = coturn
        app.add_routes([*health.routes(), *pages.routes(), web.get("/ws", endpoint.handle)])
        app.add_routes(api.routes(store, endpoint, config.public_origin))
        if media is not None:
            app.add_routes(Whip(config.http, store, ice, endpoint).routes())
        app.router.add_static("/static", WEB / "static")

        app.on_response_prepare.append(_on_answer(base_headers(config.public_origin), metrics))
        app.on_shutdown.append(lambda _app: endpoint.shutdown())
        for work in (_purge_daily(store), _watch_loop(metrics)):
            stack.push_async_callback(_cancel, asyncio.create_task(work))
        rest = stack.pop_all()
        app.on_cleanup.append(lambda _app: rest.aclose())
        return app


def _media_plane(config: Config, metrics: Metrics) -> MediaPlane | None:
    """Make the media server; None: switched off. Browsers of this machine reach it where they reach the pages."""
    if not config.media.enabled:
        return None
    loopback = config.http.host in ("localhost", "127.0.0.1", "::1")
    media = MediaPlane(config.media_in_force, loopback=loopback)
    metrics.watch_media(media.statistics)
    return media


def _on_answer(base: dict[str, str], metrics: Metrics) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return what runs as an answer begins: it is counted, and gets the headers that its handler has not set."""

    async def answering(request: web.Request, response: web.StreamResponse) -> None:
        if request.path.startswith("/static/"):
            response.headers.update(static_headers(request.path))
        for name, value in base.items():
            response.headers.setdefault(name, value)
        response.headers[hdrs.SERVER] = base[hdrs.SERVER]
        metrics.http_requests.labels(route=_route(request), status=f"{response.status // 100}xx").inc()

    return answering


def _outcomes(pages: Pages, metrics: Metrics) -> Middleware:
    """Return the outermost middleware: every request is timed, every failure has an answer that suits who asked."""

    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        started = asyncio.get_running_loop().time()
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = error if error.status < 400 else _failure(pages, request, error)
        except Exception as error:
            _log.error("http.failed", route=_route(request), **describe(error))
            response = _failure(pages, request, web.HTTPInternalServerError())
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            metrics.http_seconds.labels(route=_route(request)).observe(asyncio.get_running_loop().time() - started)
        return response

    return middleware


def _route(request: web.Request) -> str:
    """Return the route as a label: `/t/{tenant}/r`, never what stands in its place."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "none"


def _failure(pages: Pages, request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """Answer a refusal: a page for browsers, a line for the rest. Those of the API never get here."""
    if "text/html" in request.headers.get(hdrs.ACCEPT, ""):
        response = pages.error(request, error.status)
    else:
        response = web.Response(status=error.status, text=HTTPStatus(error.status).phrase + "\n")
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    if error.keep_alive is False:
        response.force_close()
    return response


async def _purge_daily(store: Store) -> None:
    """Forget what its tenant's retention no longer allows to keep, at the start and every day."""
    while True:
        try:
            removed = await store.purge(wall_now())
        except Exception as error:
            _log.error("store.purge_failed", **describe(error))
            await asyncio.sleep(_PURGE_RETRY_S)
        else:
            _log.info("store.purged", rows=removed)
            await asyncio.sleep(_PURGE_EVERY_S)


async def _watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop runs what is due."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_SAMPLE_S
        await asyncio.sleep(_LAG_SAMPLE_S)
        metrics.loop_lag_seconds.observe(max(0.0, loop.time() - due))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
