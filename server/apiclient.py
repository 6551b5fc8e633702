"""What the command line asks of the running server, through its own REST API. [IO]

Rooms and links are changed there and not in the database, so that whoever is in a room hears of it at once.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from server.api import ROOT
from server.clock import wall_now
from server.config import Config
from server.errors import ColloqueError
from server.store import Store

_KEY_LIVES = timedelta(minutes=1)
"""Of a key that could not be removed, because the process was killed."""
_TIMEOUT_S = 15.0

Call = Callable[..., Awaitable[Any]]


class CommandError(ColloqueError):
    """The command was understood and cannot be carried out; the message says why and what to do."""


@contextlib.asynccontextmanager
async def connect(store: Store, slug: str, config: Config, server: str | None = None) -> AsyncIterator[Call]:
    """Give a function that asks the running server: `await call(method, path, body=None)` returns the decoded answer.

    Args:
        store: Of the same database as the server's; the key for the calls is made there, and removed at the end.
        slug: The clinic that asks.
        config: The server's settings, which say where it listens.
        server: Where it answers, if not there.

    Raises:
        CommandError: From `call`: nobody answers, or the answer is a refusal.
    """
    base, server_name, tls = _address(config, server)
    identity, key = await store.add_api_key(slug, "command line", wall_now() + _KEY_LIVES)
    headers, timeout = {"Authorization": f"Bearer {key}"}, aiohttp.ClientTimeout(_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:

            async def call(method: str, path: str, body: object = None) -> Any:
                url = base + ROOT + path
                try:
                    async with session.request(
                        method, url, json=body, ssl=tls, server_hostname=server_name, allow_redirects=False
                    ) as answer:
                        return _taken(answer.status, await answer.read(), base)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    raise CommandError(
                        f"no server answers at {base}: start it with `colloque serve`, or say where it is with --server"
                    ) from None

            yield call
    finally:
        await store.revoke_api_key(slug, identity)


def _taken(status: int, data: bytes, base: str) -> Any:
    """Return the decoded answer of the server, or raise what it says is wrong."""
    try:
        answer: Any = json.loads(data) if data else {}
    except ValueError:
        raise CommandError(f"what answers at {base} is not Colloque") from None
    if status == 401:
        raise CommandError(f"the server at {base} uses another database: give this command its settings (--config)")
    if status >= 400:
        member = f"{answer['member']}: " if answer.get("member") else ""
        raise CommandError(f"{member}{answer.get('detail', status)} ({answer.get('code', status)})")
    return answer


def _address(config: Config, given: str | None) -> tuple[str, str | None, ssl.SSLContext | bool]:
    """Return where the server answers, the name in its certificate, and how to check it."""
    if given:
        return given.rstrip("/"), None, True
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.http.host, config.http.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    if config.http.tls_cert is None:
        return f"http://{host}:{config.http.port}", None, True
    tls = ssl.create_default_context()
    tls.load_verify_locations(config.http.tls_cert)  # so that its own certificate is believed, self-signed or not
    return f"https://{host}:{config.http.port}", urlsplit(config.public_origin).hostname, tls


async def every(call: Call, path: str) -> list[Any]:
    """Return the items of all pages of a list."""
    page = await call("GET", path)
    items: list[Any] = page["items"]
    while page["next"]:
        page = await call("GET", f"{path}&after={page['next']}")
        items += page["items"]
    return items
