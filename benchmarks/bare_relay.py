"""The least that relays WebSocket messages with aiohttp: what the signalling server is measured against. [IO]

    python -m benchmarks.bare_relay      prints its port; two sockets that open /ws?pair=N hear each other

No decoding, no checks, no rooms, no heartbeat, no limits: same event loop, same library, same switches.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import uvloop
from aiohttp import WSMsgType, web

_SOCKETS = web.AppKey("sockets", dict[str, list[web.WebSocketResponse]])


async def _relay(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(compress=False, max_msg_size=65_536)
    await websocket.prepare(request)
    pair = request.app[_SOCKETS].setdefault(request.query["pair"], [])
    pair.append(websocket)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await pair[pair[0] is websocket].send_str(message.data)
    return websocket


async def _main() -> None:
    app = web.Application()
    app[_SOCKETS] = {}
    app.router.add_get("/ws", _relay)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        await web.SockSite(runner, listener).start()
        print(listener.getsockname()[1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(_main())
