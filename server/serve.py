"""`colloque serve`: from the command line to a running server, and back to a clean exit. [IO]

The socket is bound before anything else is opened: a busy port is said at once, and links carry the port really used.

The first Ctrl-C or SIGTERM drains: /readyz says 503, nothing new is accepted, participants are told to come back,
requests finish, the store is flushed. A second Ctrl-C ends the process on the spot; a second SIGTERM changes nothing,
because some supervisors send it to the group and then to the process.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import os
import signal
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import uvloop
from aiohttp import web

from server import demo, log, tls
from server.app import COTURN, HEALTH, METRICS, STORE, build
from server.config import Config, HttpConfig
from server.errors import ConfigError
from server.headers import base_headers
from server.httpguard import Guard
from server.redact import describe
from server.signalling.coturn import Coturn

_FINISH_S = 3.0
"""What a request may still take once we drain; a client sees a reset after that."""
_KILLED = 130
"""Exit status after a second Ctrl-C: 128 + SIGINT, as shells expect."""
_ANYWHERE_BUT_HERE = "192.0.2.1"
"""TEST-NET-1 (RFC 5737). Connecting a UDP socket to it sends nothing, and tells which of our addresses it would use."""

_SELF_SIGNED_NOTE = """
Certificat auto-signé : les navigateurs afficheront un avertissement à accepter, et les iPhone refuseront la connexion.
Mieux : un certificat que le téléphone accepte (mkcert, ou celui d'un nom à vous), avec --tls-cert et --tls-key.
Self-signed certificate: browsers will show a warning to accept, and iPhones will refuse the connection.
Better: a certificate that the phone trusts (mkcert, or one for a name of yours), with --tls-cert and --tls-key.
"""

_log = structlog.get_logger()


def add_parser(subparsers: Any) -> None:
    """Add `serve` to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="run the server",
        description="Run the server until Ctrl-C or SIGTERM. Without options: plain HTTP on this machine only.",
    )
    parser.add_argument("--demo", action="store_true", help="make a demo room and print a link for each side")
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on (http.host)")
    parser.add_argument("--port", metavar="N", type=int, help="TCP port; 0 lets the system choose (http.port)")
    parser.add_argument(
        "--lan", action="store_true", help="listen on this machine's address in the local network; needs TLS, see below"
    )
    parser.add_argument("--tls-cert", metavar="FILE", type=Path, help="certificate chain, PEM (http.tls_cert)")
    parser.add_argument("--tls-key", metavar="FILE", type=Path, help="its private key, PEM (http.tls_key)")
    parser.add_argument(
        "--tls-self-signed",
        action="store_true",
        help="make a certificate: browsers warn about it, iPhones refuse it",
    )
    parser.set_defaults(func=command)


def command(args: argparse.Namespace, config: Config) -> int:
    """Run `colloque serve`.

    Raises:
        ConfigError: The server cannot start as asked; says why and what to change.
    """
    config = settle(config, args)
    log.setup(config.log)
    listener = bind(config.http)
    config = replace(config, http=replace(config.http, port=listener.getsockname()[1]))
    if args.lan and not config.http.public_url:
        config = replace(config, http=replace(config.http, public_url=_lan_origin(config.http)))
    context = None
    if config.http.tls_cert and config.http.tls_key:
        context = tls.server_context(config.http.tls_cert, config.http.tls_key)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config, listener, context, args))


def settle(config: Config, args: argparse.Namespace) -> Config:
    """Lay the command line over the settings.

    Raises:
        ConfigError: Options that contradict each other, or `--lan` without TLS or without a network.
    """
    http = config.http
    if args.lan and args.host:
        raise ConfigError("--lan finds the address itself: leave out --host, or give only --host")
    if args.tls_self_signed and (args.tls_cert or args.tls_key):
        raise ConfigError("--tls-self-signed makes a certificate: leave out --tls-cert and --tls-key, or it")
    if (args.tls_cert is None) != (args.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together")
    host = lan_address() if args.lan else args.host or http.host
    cert, key = args.tls_cert or http.tls_cert, args.tls_key or http.tls_key
    if args.tls_self_signed:
        if not _is_address(host):
            raise ConfigError("--tls-self-signed needs an address: --lan, or --host ADDRESS")
        cert, key = tls.self_signed(config.data_dir / "tls", host)
    if args.lan and cert is None:
        raise ConfigError(
            "--lan needs TLS, because browsers give camera and microphone to secure pages only: "
            "add --tls-cert FILE --tls-key FILE, or --tls-self-signed to try it without iPhones"
        )
    if host in ("", "0.0.0.0", "::") and not http.public_url:
        raise ConfigError("listening on every address, `http.public_url` must say where links lead")
    port = http.port if args.port is None else args.port
    return replace(config, http=replace(http, host=host, port=port, tls_cert=cert, tls_key=key))


def lan_address() -> str:
    """Return this machine's address in the local network, without sending anything.

    Raises:
        ConfigError: There is no network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ANYWHERE_BUT_HERE, 9))
        except OSError:
            raise ConfigError("--lan: this machine has no route to a network; give its address with --host") from None
        address: str = probe.getsockname()[0]
        return address


def _lan_origin(http: HttpConfig) -> str:
    assert http.tls_cert is not None
    return f"https://{tls.name_for(http.tls_cert, http.host)}:{http.port}"


def _is_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def bind(http: HttpConfig) -> socket.socket:
    """Return the listening socket, not accepting yet.

    Raises:
        ConfigError: The port is taken, not allowed, or the address is not ours.
    """
    where = f"{http.host or 'every address'} port {http.port}"
    try:
        if http.host in ("", "::"):
            return socket.create_server(("::", http.port), family=socket.AF_INET6, dualstack_ipv6=True)
        family, _, _, _, address = socket.getaddrinfo(http.host, http.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror:
        raise ConfigError(f"`http.host`: {http.host} is neither an address nor a known name") from None
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port {http.port} is already used by another program (or another colloque): "
            "stop it, or choose another port with --port N (`http.port`)",
            errno.EACCES: f"port {http.port} needs privileges: choose one above 1023 with --port N (`http.port`)",
            errno.EADDRNOTAVAIL: f"{http.host} is not an address of this machine (`http.host`, --host)",
        }
        raise ConfigError(reasons.get(error.errno or 0, f"cannot listen on {where}: {error.strerror}")) from None


async def serve(
    config: Config, listener: socket.socket, context: ssl.SSLContext | None, args: argparse.Namespace
) -> int:
    """Serve until a signal, then drain. Return the exit status."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_stray_error)
    stop = asyncio.Event()
    children: list[Coturn] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, number, stop, children)

    app = await build(config)
    if COTURN in app:
        children.append(app[COTURN])
    runner = web.AppRunner(app, shutdown_timeout=_FINISH_S)
    try:
        await runner.setup()
        assert runner.server is not None
        guard = Guard(runner.server, config.http, app[METRICS], base_headers(config.public_origin))
        server = await guard.listen(listener, context)
        _log.info("listening", origin=config.public_origin, port=config.http.port)
        if args.demo:
            demo.show(await demo.prepare(app[STORE], config.public_origin), qr=args.lan)
        if args.tls_self_signed:
            print(_SELF_SIGNED_NOTE, flush=True)
        await stop.wait()
        _log.info("draining")
        app[HEALTH].draining = True
        server.close()
    finally:
        await runner.cleanup()
    _log.info("stopped")
    return 0


def _on_signal(number: signal.Signals, stop: asyncio.Event, children: list[Coturn]) -> None:
    if stop.is_set() and number == signal.SIGINT:
        for child in children:
            child.kill()
        os._exit(_KILLED)
    stop.set()


def _on_stray_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody awaited or caught, without the message, which may quote anything."""
    error = context.get("exception")
    details = describe(error) if isinstance(error, BaseException) else {}
    _log.error("loop.error", summary=str(context.get("message", "")).partition(":")[0], **details)
