"""The command line: on the database without a server, and through a running one."""

from __future__ import annotations

import asyncio
import json
import logging
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from PIL import Image

from server.__main__ import main
from server.store import Store
from tests.live import Live


@dataclass
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)

    @property
    def line(self) -> str:
        assert self.status == 0, self.err
        return self.out.removesuffix("\n")

    @property
    def refusal(self) -> str:
        assert self.status == 1, (self.status, self.out)
        assert self.out == ""
        assert self.err.startswith("colloque: ")
        assert self.err.count("\n") == 1
        return self.err


Cli = Callable[..., Done]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run `colloque ...` with a database of its own."""
    monkeypatch.setenv("COLLOQUE_DATA_DIR", str(tmp_path / "data"))
    handlers = logging.getLogger().handlers[:]

    def run(*arguments: str | Path) -> Done:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as misuse:
            status = int(misuse.code or 0)
        return Done(status, *capsys.readouterr())

    yield run
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


def look(tmp_path: Path, work: Callable[[Store], Any]) -> Any:
    """Look into the database that the commands have written."""

    async def open_and_look() -> Any:
        store = await Store.open(f"sqlite:///{tmp_path / 'data' / 'colloque.db'}")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(open_and_look())


# -- on the database --------------------------------------------------------------------------------------------------


def test_clinics(cli: Cli, tmp_path: Path):
    assert cli("tenant", "list").line == "(none)"
    assert "tenant create" in cli("tenant", "show").refusal
    assert "clinique" in cli("tenant", "create", "clinique", "--name", "Clinique du Parc").line
    assert "already" in cli("tenant", "create", "clinique", "--name", "Autre").refusal
    shown = cli("tenant", "show", "--json").json
    assert shown == {
        "slug": "clinique", "name": "Clinique du Parc", "language": "fr", "colour": "", "origins": [],
        "topology": "auto", "retentionDays": 30, "logoDigest": "",
    }  # fmt: skip
    changed = cli(
        "tenant", "set", "--name", "Parc", "--language", "en", "--colour", "#ABCDEF", "--origin", "https://a.example",
        "--origin", "https://b.example", "--topology", "relay-only", "--retention-days", "7", "--json",
    ).json  # fmt: skip
    assert changed == {
        **shown, "name": "Parc", "language": "en", "colour": "#abcdef", "topology": "relay-only", "retentionDays": 7,
        "origins": ["https://a.example", "https://b.example"],
    }  # fmt: skip
    assert cli("tenant", "set", "--no-origins", "--json").json == {**changed, "origins": []}
    assert cli("tenant", "list").out.splitlines()[1].split() == ["clinique", "Parc", "en", "relay-only", "7"]
    cli("tenant", "create", "autre", "--name", "Autre")
    assert "--tenant with one of: autre, clinique" in cli("tenant", "show").refusal
    assert "there is no clinic absent" in cli("tenant", "show", "--tenant", "absent").refusal
    assert cli("tenant", "show", "--tenant", "autre", "--json").json["slug"] == "autre"


@pytest.mark.parametrize(
    "arguments",
    [
        ("tenant", "create", "Clinique", "--name", "x"),
        ("tenant", "create", "clinique", "--name", " "),
        ("tenant", "create", "clinique", "--name", "x", "--origin", "*"),
        ("tenant", "create", "clinique", "--name", "x", "--colour", "red"),
        ("tenant", "create", "clinique", "--name", "x", "--retention-days", "0"),
    ],
)
def test_what_makes_no_sense_is_not_written(cli: Cli, arguments: tuple[str, ...]):
    assert cli(*arguments).refusal
    assert cli("tenant", "list").line == "(none)"


def test_misuse_is_told_from_failure(cli: Cli):
    assert cli("tenant", "create", "clinique").status == 2
    assert cli("tenant", "frobnicate").status == 2
    assert cli("link", "mint", "room").status == 2
    assert cli().status == 2
    assert cli("tenant", "--help").status == 0


def test_a_logo(cli: Cli, tmp_path: Path):
    cli("tenant", "create", "clinique", "--name", "Clinique")
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "logo.webp")
    assert cli("tenant", "logo", tmp_path / "logo.webp", "--json").json["logoDigest"]
    kept = look(tmp_path, lambda store: store.logo("clinique"))
    assert kept.startswith(b"\x89PNG")
    (tmp_path / "logo.svg").write_text("<svg/>")
    assert "PNG, JPEG or WebP" in cli("tenant", "logo", tmp_path / "logo.svg").refusal
    assert "No such file" in cli("tenant", "logo", tmp_path / "absent.png").refusal
    assert cli("tenant", "logo", "--json").json["logoDigest"] == ""


def test_api_keys(cli: Cli, tmp_path: Path):
    cli("tenant", "create", "clinique", "--name", "Clinique")
    key = cli("key", "create", "--label", "agenda").line
    tenant = look(tmp_path, lambda store: store.tenant_by_api_key(key))
    assert tenant.slug == "clinique"
    [listed] = cli("key", "list", "--json").json
    assert listed["label"] == "agenda"
    assert key not in json.dumps(listed)
    assert "key list" in cli("key", "revoke", "absent").refusal
    assert cli("key", "revoke", listed["id"]).status == 0
    assert look(tmp_path, lambda store: store.tenant_by_api_key(key)) is None


def test_signing_keys(cli: Cli, tmp_path: Path):
    cli("tenant", "create", "clinique", "--name", "Clinique")
    key = ed25519.Ed25519PrivateKey.generate()
    public, private = tmp_path / "public.pem", tmp_path / "private.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "disclosed" in cli("key", "signing", "add", "2026", private).refusal
    assert "a kid has" in cli("key", "signing", "add", "a b", public).refusal
    assert cli("key", "signing", "add", "2026", public, "--json").json["algorithm"] == "EdDSA"
    assert "already" in cli("key", "signing", "add", "2026", public).refusal
    assert [key["kid"] for key in cli("key", "signing", "list", "--json").json] == ["2026"]
    assert cli("key", "signing", "delete", "2026").status == 0
    assert "signing list" in cli("key", "signing", "delete", "2026").refusal


def test_what_the_operator_does_is_in_the_trail(cli: Cli, tmp_path: Path):
    cli("tenant", "create", "clinique", "--name", "Canari")
    cli("tenant", "set", "--name", "Canari 2", "--language", "en")
    cli("key", "create")
    trail = look(tmp_path, lambda store: store.audit(""))
    assert [(event.kind, event.actor, event.detail) for event in trail] == [
        ("tenant.created", "operator", ""),
        ("tenant.changed", "operator", "language,name"),
        ("key.added", "operator", ""),
    ]
    assert "Canari" not in repr(trail)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_can_be_checked_and_shown(cli: Cli, tmp_path: Path):
    path = tmp_path / "colloque.toml"
    path.write_text('[http]\nport = 8443\n[turn]\nhost = "turn.example.org"\nsecret = "canary"\n')
    assert "valid" in cli("--config", path, "config", "check").line
    shown = cli("config", "show", "--config", path)
    assert "canary" not in shown.out
    assert tomllib.loads(shown.out)["http"]["port"] == 8443
    assert cli("config", "show", "--json", "--config", path).json["turn"]["secret"] == "(set)"
    path.write_text("[http]\nprot = 8443\n")
    wrong = cli("config", "check", "--config", path)
    assert wrong.status == 2
    assert "`http.prot` is not a setting" in wrong.err


def test_configurations_of_others(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "TURN__HOST": "turn.example.org", "TURN__SECRET": "hunter2", "HTTP__PUBLIC_URL": "https://video.example.org",
        "HTTP__TRUSTED_PROXIES": "127.0.0.1", "SPLITTER__TLS_CERT": "c", "SPLITTER__TLS_KEY": "k",
        "TURN__TLS_CERT": "c", "TURN__TLS_KEY": "k",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"COLLOQUE_{name}", value)
    assert "static-auth-secret=hunter2" in cli("turn", "config").line
    assert "ssl_preread on" in cli("turn", "nginx").line


def test_a_database_that_cannot_be_had_is_a_matter_of_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLLOQUE_STORE__URL", "sqlite:////nowhere/at/all.db")
    done = cli("tenant", "list")
    assert done.status == 2
    assert "`store.url`" in done.err


# -- through the server -----------------------------------------------------------------------------------------------


def test_without_a_server_it_says_what_to_do(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLLOQUE_HTTP__PORT", "1")
    cli("tenant", "create", "clinique", "--name", "Clinique")
    assert "no server answers at http://127.0.0.1:1: start it with `colloque serve`" in cli("room", "create").refusal
    assert look(tmp_path, lambda store: store.api_keys("clinique")) == []


async def test_rooms_and_links_through_the_server(live: Live, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLLOQUE_DATA_DIR", str(live.data_dir))
    monkeypatch.setenv("COLLOQUE_HTTP__PORT", str(live.port))

    async def run(*arguments: str) -> Done:
        return await asyncio.to_thread(cli, *arguments)

    room = (await run("room", "create", "--reference", "rdv 1/été")).line
    assert (await live.store.room(room)).reference == "rdv 1/été"  # type: ignore[union-attr]
    assert "reference_taken" in (await run("room", "create", "--reference", "rdv 1/été")).refusal
    assert (await run("room", "show", "rdv 1/été", "--json")).json["id"] == room
    assert [listed["id"] for listed in (await run("room", "list", "--state", "open", "--json")).json] == [room]

    mint = ("link", "mint", room, "--role", "patient", "--expires-at")
    url = (await run(*mint, "2099-01-01T00:00:00+01:00")).refusal
    assert "expiresAt" in url
    assert "expiresAt" in (await run(*mint, "tomorrow")).refusal
    minted = (await run("link", "mint", "rdv 1/été", "--role", "patient", "--name", "Ann", "--json")).json
    assert minted["url"].startswith(f"{live.origin}/t/clinique/r#")
    url = (await run("link", "mint", room, "--role", "guest", "--reusable")).line
    link = await live.store.link_by_secret(url.partition("#")[2])
    assert link is not None and not link.single_use
    assert {row["id"] for row in (await run("link", "list", room, "--json")).json} == {minted["id"], link.id}
    assert (await run("link", "revoke", room, link.id)).status == 0
    assert (await live.store.link(link.id)).revoked_at is not None  # type: ignore[union-attr]
    assert "not_found" in (await run("link", "revoke", room, "A" * 22)).refusal

    assert "room_not_live" in (await run("room", "path", room, "relayed")).refusal
    assert (await run("room", "end", room)).status == 0
    assert (await live.store.room(room)).end_reason == "host"  # type: ignore[union-attr]
    assert "room_ended" in (await run("link", "mint", room, "--role", "guest")).refusal
    assert "no room with this id" in (await run("room", "show", "absent")).refusal
    assert [key.label for key in await live.store.api_keys("clinique")][1:] == []  # its own keys are gone again


async def test_every_page_of_a_list_is_fetched(live: Live, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLLOQUE_DATA_DIR", str(live.data_dir))
    for _ in range(101):
        await live.room()
    rooms = await asyncio.to_thread(cli, "room", "list", "--json", "--server", live.origin)
    assert len(rooms.json) == 101


async def test_a_server_with_another_database_is_recognised(live: Live, cli: Cli):
    await asyncio.to_thread(cli, "tenant", "create", "clinique", "--name", "Clinique")
    done = await asyncio.to_thread(cli, "room", "list", "--server", live.origin)
    assert "another database" in done.refusal
