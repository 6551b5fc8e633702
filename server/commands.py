"""The administrator's commands: `colloque tenant|key|room|link|config|turn`. [IO]

    tenant, key     work on the database directly, whether the server runs or not
    room, link      ask the running server through its own REST API, so that whoever is in a room hears of it at once;
                    the API key for that is made in the database for one minute and removed after the call
    config, turn    read the settings

People get a table or a sentence, scripts `--json`. Exit status: 0 done, 1 not done (standard error says why), 2 misuse.

Above 500 lines, but one thing: a table of commands, each a few lines over the store, the API or the settings.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import msgspec

from server import apiclient, checks, log, logo
from server import config as settings
from server.apiclient import Call, CommandError, every
from server.audit import OPERATOR, AuditKind
from server.clock import wall_now
from server.config import Config
from server.errors import RefusalError
from server.records import AuditEvent, Language, Role, SigningKey, Tenant, Topology
from server.signalling.coturn import Coturn, load_secret
from server.signalling.splitter import render_nginx
from server.signalling.turn import render_coturn
from server.store import DATABASE_ERRORS, Store

_FAILED = 1

_Command = Callable[[argparse.Namespace, Config], int]
_Work = Callable[[argparse.Namespace, Config], Coroutine[Any, Any, int]]
_NOTHING_YET = "(none)"


# -- the words --------------------------------------------------------------------------------------------------------


def add_parsers(subparsers: Any) -> None:
    """Add the commands of this module to the command line; each sets `func(args, config) -> int`."""
    _add_tenant(_group(subparsers, "tenant", "clinics: create, list, show, change"))
    _add_key(_group(subparsers, "key", "a clinic's API keys and signing keys"))
    _add_room(_group(subparsers, "room", "rooms: create, list, show, path, end (asks the running server)"))
    _add_link(_group(subparsers, "link", "invitations: mint, list, revoke (asks the running server)"))
    _add_config(_group(subparsers, "config", "check or show the settings"))
    _add_turn(_group(subparsers, "turn", "coturn and nginx: their configuration, or coturn in the foreground"))


def _group(subparsers: Any, name: str, text: str) -> Any:
    return subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".").add_subparsers(
        metavar="COMMAND", required=True
    )


def _command(group: Any, name: str, text: str, func: _Command) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(func=func)
    parser.add_argument("--config", metavar="FILE", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _json_option(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="for scripts: JSON on standard output")
    return parser


def _on_database(group: Any, name: str, text: str, work: _Work) -> argparse.ArgumentParser:
    return _json_option(_command(group, name, text, lambda args, config: _run(work, args, config)))


def _on_server(group: Any, name: str, text: str, work: _Work) -> argparse.ArgumentParser:
    parser = _on_database(group, name, text, work)
    _tenant_option(parser)
    parser.add_argument("--server", metavar="URL", help="where the server answers, if not where the settings say")
    return parser


def _tenant_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", metavar="SLUG", default="", help="the clinic; may be left out when there is one")


def _add_tenant(group: Any) -> None:
    create = _on_database(group, "create", "add a clinic", _tenant_create)
    create.add_argument("slug", help="its name in page addresses: a-z, 0-9, hyphens")
    _tenant_options(create, required=True)
    _on_database(group, "list", "list the clinics", _tenant_list)
    show = _on_database(group, "show", "show a clinic", _tenant_show)
    change = _on_database(group, "set", "change a clinic; what is not named stays", _tenant_set)
    _tenant_options(change, required=False)
    change.add_argument("--no-origins", action="store_true", help="nobody may embed")
    picture = _on_database(group, "logo", "replace or remove a clinic's logo", _tenant_logo)
    picture.add_argument("file", nargs="?", type=Path, help="PNG, JPEG or WebP, at most 100 kB; without one: remove it")
    for parser in (show, change, picture):
        _tenant_option(parser)


def _tenant_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--name", required=required, help="as patients read it")
    parser.add_argument("--language", choices=get_args(Language), help="of pages and messages (fr)")
    parser.add_argument("--colour", metavar="#RRGGBB", help='of buttons and accents; "" for ours')
    parser.add_argument("--origin", action="append", help="may embed, such as https://rdv.example.fr; may be repeated")
    parser.add_argument("--topology", choices=get_args(Topology), help="of its rooms (auto)")
    parser.add_argument("--retention-days", type=int, metavar="N", help="how long ended rooms are kept (30)")


def _add_key(group: Any) -> None:
    create = _on_database(group, "create", "make an API key; it is shown this once", _key_create)
    create.add_argument("--label", default="", help="what it is for")
    listing = _on_database(group, "list", "list the API keys", _key_list)
    revoke = _on_database(group, "revoke", "revoke an API key", _key_revoke)
    revoke.add_argument("key", help="its id, from `colloque key list`")
    signing = _group(group, "signing", "public keys whose owner may sign links")
    add = _on_database(
        signing, "add", "register a public key: Ed25519, P-256, or RSA of at least 2048 bits", _signing_add
    )
    add.add_argument("kid", help="the `kid` of the tokens it signs")
    add.add_argument("file", type=Path, help="public key, PEM")
    signing_list = _on_database(signing, "list", "list the public keys", _signing_list)
    delete = _on_database(signing, "delete", "remove a public key", _signing_delete)
    delete.add_argument("kid")
    for parser in (create, listing, revoke, add, signing_list, delete):
        _tenant_option(parser)


def _add_room(group: Any) -> None:
    create = _on_server(group, "create", "open a room", _room_create)
    create.add_argument("--reference", default="", help="your own identifier, unique; choose one that names nobody")
    create.add_argument("--topology", choices=get_args(Topology), help="if not the clinic's own")
    listing = _on_server(group, "list", "list rooms, newest first", _room_list)
    listing.add_argument("--state", choices=("open", "ended"))
    for name, text, work in (("show", "show a room", _room_show), ("end", "end a room for everybody", _room_end)):
        _room_argument(_on_server(group, name, text, work))
    path = _on_server(group, "path", "say which way a live room's sound and pictures go", _room_path)
    _room_argument(path)
    path.add_argument("path", choices=("relayed", "auto"), help="through the media server; or as the server sees fit")


def _room_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("room", help="its id, or your own reference")


def _add_link(group: Any) -> None:
    mint = _on_server(group, "mint", "invite somebody; the address is shown this once", _link_mint)
    _room_argument(mint)
    mint.add_argument("--role", choices=get_args(Role), required=True)
    mint.add_argument("--name", default="", help="what the others see")
    mint.add_argument("--not-before", metavar="TIME", help="RFC 3339 with offset, such as 2026-03-02T09:00:00+01:00")
    mint.add_argument("--expires-at", metavar="TIME", help="the same; to come in by, whoever is in stays")
    mint.add_argument("--reusable", action="store_true", help="each device that opens it is a participant")
    listing = _on_server(group, "list", "list a room's links", _link_list)
    _room_argument(listing)
    revoke = _on_server(group, "revoke", "revoke a link; whoever came through it leaves", _link_revoke)
    _room_argument(revoke)
    revoke.add_argument("link", help="its id, from `colloque link list`")


def _add_config(group: Any) -> None:
    _json_option(_command(group, "check", "check the settings, and say what is wrong with them", _config_check))
    _json_option(_command(group, "show", "show the settings in force, secrets hidden", _config_show))


def _add_turn(group: Any) -> None:
    _command(group, "config", "print coturn's configuration, which holds the secret", _turn_config)
    _command(group, "nginx", "print the configuration of nginx in front of server and coturn", _turn_nginx)
    _command(
        group, "run", "run coturn in the foreground until Ctrl-C", lambda args, config: _run(_turn_run, args, config)
    )


# -- clinics and keys: on the database --------------------------------------------------------------------------------


async def _tenant_create(args: argparse.Namespace, config: Config) -> int:
    tenant = Tenant(checks.slug(args.slug), checks.name(args.name))
    tenant = dataclasses.replace(tenant, **_tenant_changes(args))
    async with _store(config) as store:
        await store.create_tenant(tenant)
        _note(store, tenant, "tenant.created")
    return _told(
        args,
        _shown_tenant(tenant),
        f"The clinic {tenant.slug} is there. Next: colloque key create --tenant {tenant.slug}",
    )


async def _tenant_list(args: argparse.Namespace, config: Config) -> int:
    async with _store(config) as store:
        rows = [_shown_tenant(tenant) for tenant in await store.tenants()]
    return _listed(args, rows, ("slug", "name", "language", "topology", "retentionDays"))


async def _tenant_show(args: argparse.Namespace, config: Config) -> int:
    async with _store(config) as store:
        return _one(args, _shown_tenant(await _tenant(store, args)))


async def _tenant_set(args: argparse.Namespace, config: Config) -> int:
    changes = _tenant_changes(args)
    if args.no_origins:
        changes["origins"] = ()
    if args.name is not None:
        changes["name"] = checks.name(args.name)
    async with _store(config) as store:
        tenant = dataclasses.replace(await _tenant(store, args), **changes)
        await store.update_tenant(tenant)
        _note(store, tenant, "tenant.changed", detail=",".join(changes))
    return _one(args, _shown_tenant(tenant))


async def _tenant_logo(args: argparse.Namespace, config: Config) -> int:
    png = logo.normalise(_read(args.file)) if args.file else None
    async with _store(config) as store:
        tenant = await _tenant(store, args)
        tenant = await store.set_logo(tenant.slug, png) or tenant
        _note(store, tenant, "tenant.changed", detail="logo")
    return _told(args, _shown_tenant(tenant), f"The logo of {tenant.slug} is {'in place' if png else 'removed'}.")


def _tenant_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Return the checked values of the options that were given."""
    found: dict[str, Any] = {}
    for name in ("language", "topology"):
        if (value := getattr(args, name)) is not None:
            found[name] = value
    if args.colour is not None:
        found["colour"] = checks.colour(args.colour)
    if args.origin is not None:
        found["origins"] = checks.origins(args.origin)
    if args.retention_days is not None:
        found["retention_days"] = checks.retention_days(args.retention_days)
    return found


async def _key_create(args: argparse.Namespace, config: Config) -> int:
    label = checks.line(args.label)
    async with _store(config) as store:
        tenant = await _tenant(store, args)
        identity, key = await store.add_api_key(tenant.slug, label)
        _note(store, tenant, "key.added", identity)
    return _told(args, {"id": identity, "tenant": tenant.slug, "label": label, "key": key}, key)


async def _key_list(args: argparse.Namespace, config: Config) -> int:
    async with _store(config) as store:
        keys = await store.api_keys((await _tenant(store, args)).slug)
    return _listed(args, [_camel(dataclasses.asdict(key)) for key in keys], ("id", "label", "createdAt", "expiresAt"))


async def _key_revoke(args: argparse.Namespace, config: Config) -> int:
    async with _store(config) as store:
        tenant = await _tenant(store, args)
        if not await store.revoke_api_key(tenant.slug, args.key):
            raise CommandError(f"{tenant.slug} has no API key with this id; they are in `colloque key list`")
        _note(store, tenant, "key.revoked", args.key)
    return _told(args, {"id": args.key, "revoked": True}, "The key is revoked.")


async def _signing_add(args: argparse.Namespace, config: Config) -> int:
    kid = checks.key_id(args.kid)
    algorithm, pem = checks.public_key(_read(args.file).decode("utf-8", "replace"))
    async with _store(config) as store:
        tenant = await _tenant(store, args)
        key = SigningKey(tenant.slug, kid, algorithm, pem, wall_now())
        await store.add_signing_key(key)
        _note(store, tenant, "signing_key.added", key.kid)
    return _told(
        args, _camel(dataclasses.asdict(key)), f"Tokens of {tenant.slug} with kid {key.kid} ({algorithm}) open rooms."
    )


async def _signing_list(args: argparse.Namespace, config: Config) -> int:
    async with _store(config) as store:
        keys = await store.signing_keys((await _tenant(store, args)).slug)
    return _listed(args, [_camel(dataclasses.asdict(key)) for key in keys], ("kid", "algorithm", "createdAt"))


async def _signing_delete(args: argparse.Namespace, config: Config) -> int:
    async with _store(config) as store:
        tenant = await _tenant(store, args)
        if not await store.delete_signing_key(tenant.slug, args.kid):
            raise CommandError(f"{tenant.slug} has no signing key of this kid; they are in `colloque key signing list`")
        _note(store, tenant, "signing_key.deleted", args.kid)
    return _told(args, {"kid": args.kid, "deleted": True}, "The signing key is removed.")


@contextlib.asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Store]:
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = await Store.open(config.store_url)
    try:
        yield store
    finally:
        await store.close()


async def _tenant(store: Store, args: argparse.Namespace) -> Tenant:
    """Return the clinic that is meant: the one named, or the only one."""
    tenants = {tenant.slug: tenant for tenant in await store.tenants()}
    if args.tenant:
        if args.tenant not in tenants:
            raise CommandError(f"there is no clinic {args.tenant}: {', '.join(tenants) or 'there is none at all'}")
        return tenants[args.tenant]
    if not tenants:
        raise CommandError("there is no clinic yet: colloque tenant create SLUG --name NAME")
    if len(tenants) > 1:
        raise CommandError(f"which clinic? Say --tenant with one of: {', '.join(tenants)}")
    return next(iter(tenants.values()))


def _note(store: Store, tenant: Tenant, kind: AuditKind, subject: str = "", detail: str = "") -> None:
    store.append(AuditEvent(wall_now(), tenant.slug, "", kind, OPERATOR, subject, detail))


# -- rooms and links: through the server ------------------------------------------------------------------------------


async def _room_create(args: argparse.Namespace, config: Config) -> int:
    body = {"reference": args.reference, "topology": args.topology}
    async with _server(args, config) as call:
        room = await call("POST", "/rooms", {name: value for name, value in body.items() if value})
    return _told(args, room, room["id"])


async def _room_list(args: argparse.Namespace, config: Config) -> int:
    query = f"&state={args.state}" if args.state else ""
    async with _server(args, config) as call:
        rooms = await every(call, "/rooms?limit=100" + query)
    return _listed(args, rooms, ("id", "reference", "state", "topology", "createdAt", "participants"))


async def _room_show(args: argparse.Namespace, config: Config) -> int:
    async with _server(args, config) as call:
        return _one(args, await _room(call, args.room))


async def _room_end(args: argparse.Namespace, config: Config) -> int:
    async with _server(args, config) as call:
        room = await call("POST", f"/rooms/{(await _room(call, args.room))['id']}/end")
    return _told(args, room, f"The room has ended ({room['endReason']}).")


async def _room_path(args: argparse.Namespace, config: Config) -> int:
    async with _server(args, config) as call:
        room = await call("PUT", f"/rooms/{(await _room(call, args.room))['id']}/path", {"path": args.path})
    told = {"relayed": "The media server carries the room until you say auto.", "auto": "The server chooses the path."}
    return _told(args, room, told[args.path])


async def _link_mint(args: argparse.Namespace, config: Config) -> int:
    times = {"notBefore": args.not_before, "expiresAt": args.expires_at}
    body = {"role": args.role, "name": args.name, "singleUse": not args.reusable}
    async with _server(args, config) as call:
        path = f"/rooms/{(await _room(call, args.room))['id']}/links"
        link = await call("POST", path, body | {name: value for name, value in times.items() if value})
    return _told(args, link, link["url"])


async def _link_list(args: argparse.Namespace, config: Config) -> int:
    async with _server(args, config) as call:
        links = await every(call, f"/rooms/{(await _room(call, args.room))['id']}/links?limit=100")
    return _listed(args, links, ("id", "role", "name", "singleUse", "notBefore", "expiresAt", "revokedAt"))


async def _link_revoke(args: argparse.Namespace, config: Config) -> int:
    async with _server(args, config) as call:
        room = await _room(call, args.room)
        link = await call("POST", f"/rooms/{room['id']}/links/{quote(args.link, safe='')}/revoke")
    return _told(args, link, "The link is revoked.")


@contextlib.asynccontextmanager
async def _server(args: argparse.Namespace, config: Config) -> AsyncIterator[Call]:
    async with _store(config) as store:
        tenant = await _tenant(store, args)
        async with apiclient.connect(store, tenant.slug, config, args.server) as call:
            yield call


async def _room(call: Call, name: str) -> Any:
    """Return the room with this id, or else with this reference."""
    if len(name) == 22 and all(character.isalnum() or character in "-_" for character in name):
        with contextlib.suppress(CommandError):
            return await call("GET", f"/rooms/{name}")
    found = (await call("GET", f"/rooms?reference={quote(name, safe='')}"))["items"]
    if not found or not name:
        raise CommandError("the clinic has no room with this id or reference; they are in `colloque room list`")
    return found[0]


# -- settings and TURN ------------------------------------------------------------------------------------------------


def _config_check(args: argparse.Namespace, config: Config) -> int:
    """Settings that can be read are valid: `config.load` has refused everything else."""
    return _told(args, {"valid": True}, f"The settings are valid. Links start with {config.public_origin}")


def _config_show(args: argparse.Namespace, config: Config) -> int:
    tree = settings.public_tree(config)
    return _print(json.dumps(tree, indent=2, ensure_ascii=False) if args.json else settings.toml(tree))


def _turn_config(_args: argparse.Namespace, config: Config) -> int:
    return _print(render_coturn(config, load_secret(config)))


def _turn_nginx(_args: argparse.Namespace, config: Config) -> int:
    return _print(render_nginx(config))


async def _turn_run(_args: argparse.Namespace, config: Config) -> int:
    stop, coturn = asyncio.Event(), Coturn(config, load_secret(config))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await coturn.start()
    try:
        await stop.wait()
    finally:
        await coturn.stop()
    return 0


# -- out --------------------------------------------------------------------------------------------------------------


def _run(work: _Work, args: argparse.Namespace, config: Config) -> int:
    """Carry out a command; tell what went wrong on standard error."""
    log.setup(config.log)
    try:
        return asyncio.run(work(args, config))
    except RefusalError as refusal:
        reason = _REFUSALS.get(refusal.code, refusal.code)
    except (CommandError, ValueError) as error:
        reason = str(error)
    except DATABASE_ERRORS:
        reason = "the database does not do what it is asked; is it in use by something else, or gone?"
    print(f"colloque: {reason}", file=sys.stderr)
    return _FAILED


_REFUSALS = {
    "tenant_exists": "there is a clinic of this slug already; change it with `colloque tenant set`",
    "kid_taken": "the clinic has a signing key of this kid already; delete it first",
}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None


def _shown_tenant(tenant: Tenant) -> dict[str, Any]:
    return _camel(dataclasses.asdict(tenant))


def _camel(fields: dict[str, Any]) -> dict[str, Any]:
    """Name members as the REST API does."""
    return {name.split("_")[0] + "".join(map(str.title, name.split("_")[1:])): value for name, value in fields.items()}


def _told(args: argparse.Namespace, value: Any, sentence: str) -> int:
    return _print(_json(value) if args.json else sentence)


def _one(args: argparse.Namespace, value: dict[str, Any]) -> int:
    if args.json:
        return _print(_json(value))
    width = max(map(len, value))
    return _print("\n".join(f"{name:<{width}}  {_cell(inner)}" for name, inner in value.items()))


def _listed(args: argparse.Namespace, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> int:
    if args.json:
        return _print(_json(rows))
    if not rows:
        return _print(_NOTHING_YET)
    lines = [columns, *(tuple(_cell(row[column]) for column in columns) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return _print("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines))


def _cell(value: Any) -> str:
    """Write one value for a person."""
    if isinstance(value, datetime):
        value = value.isoformat(timespec="seconds")
    if isinstance(value, dict):
        value = ", ".join(f"{count} {state}" for state, count in value.items())
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return "-" if value in (None, "") else str(value)


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _print(text: str) -> int:
    print(text)
    return 0
