"""The server as a whole: what is where, what happens when a part fails, and the command line."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server import __version__, app
from server.__main__ import main
from server.clock import wall_now
from server.config import Config, from_tree
from server.errors import ConfigError
from server.records import Tenant
from server.store import Store
from tests.live import ROOT


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return from_tree({"data_dir": str(tmp_path / "data"), "media": {"port": 0, "workers": 1}})


@pytest.fixture
async def client(config) -> AsyncIterator[TestClient]:
    built = await app.build(config)

    async def fail(_request: web.Request) -> web.StreamResponse:
        raise ValueError("canary-in-an-error")

    built.router.add_get("/fail", fail)
    built.router.add_get("/api/fail", fail)
    async with TestClient(TestServer(built)) as made:
        yield made


async def test_the_folder_is_ours_alone(client, config):
    assert config.data_dir.stat().st_mode & 0o777 == 0o700


async def test_alive_and_ready(client):
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "alive\n")
    async with client.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "ready\n")


async def test_not_ready_without_its_store(client):
    async def no() -> bool:
        return False

    client.app[app.STORE].ready = no
    async with client.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (503, "the store does not answer\n")
    async with client.get("/healthz") as answer:
        assert answer.status == 200, "restarting it would not bring the store back"


@pytest.mark.parametrize(
    ("path", "accept", "content_type"),
    [
        ("/fail", "text/html", "text/html"),
        ("/fail", "*/*", "text/plain"),
        ("/api/fail", "text/html", "application/problem+json"),
    ],
)
async def test_an_error_of_ours_says_nothing_of_its_inside(client, path, accept, content_type):
    async with client.get(path, headers={"Accept": accept}) as answer:
        assert answer.status == 500
        assert answer.content_type == content_type
        text = await answer.text()
        assert "canary" not in text and "ValueError" not in text and "Traceback" not in text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_the_api_is_there(client):
    async with client.get("/api/v1/openapi.json") as answer:
        assert (await answer.json())["openapi"].startswith("3.1")
    async with client.get("/api/v1/rooms") as answer:
        assert answer.status == 401


async def test_what_is_due_is_forgotten_at_the_start(config, monkeypatch):
    config.data_dir.mkdir(mode=0o700)
    store = await Store.open(config.store_url)
    await store.create_tenant(Tenant(slug="clinique", name="Clinique", retention_days=1))
    old = await store.create_room("clinique", at=wall_now() - timedelta(days=3))
    await store.end_room(old.id, "host", wall_now() - timedelta(days=2))
    kept = await store.create_room("clinique")
    await store.close()

    purged = asyncio.Event()
    purge = Store.purge

    async def note(self: Store, at: datetime | None = None) -> int:
        removed = await purge(self, at)
        purged.set()
        return removed

    monkeypatch.setattr(Store, "purge", note)
    built = await app.build(config)
    async with TestServer(built), asyncio.timeout(30):
        await purged.wait()
        assert await built[app.STORE].room(old.id) is None
        assert await built[app.STORE].room(kept.id) is not None


async def test_nothing_is_left_running(config):
    before = asyncio.all_tasks()
    for _ in range(2):  # and the database can be opened again
        built = await app.build(config)
        async with TestServer(built):
            pass
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_failed_start_closes_what_was_opened(config, monkeypatch):
    closed = []
    close = Store.close

    async def note(self: Store) -> None:
        closed.append(self)
        await close(self)

    def refuse(*_: object) -> None:
        raise ConfigError("no key")

    monkeypatch.setattr(Store, "close", note)
    monkeypatch.setattr(app, "Pages", refuse)
    before = asyncio.all_tasks()
    with pytest.raises(ConfigError, match="no key"):
        await app.build(config)
    assert len(closed) == 1
    assert asyncio.all_tasks() == before


# The command line -----------------------------------------------------------------------------------------------------


def command_line(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


def test_module_and_console_script_are_the_same():
    script = str(Path(sys.executable).parent / "colloque")
    for command in ([script], [sys.executable, "-m", "server"]):
        assert command_line(*command, "--version") == (0, f"colloque {__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    ["", "serve", "tenant", "tenant create", "key", "room", "room create", "link", "link mint", "config", "turn"],
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: colloque {command}".rstrip())
    assert "==SUPPRESS==" not in text
    if command == "serve":
        for option in (
            "--demo",
            "--lan",
            "--tls-cert",
            "--tls-key",
            "--tls-self-signed",
            "--host",
            "--port",
            "iPhones",
        ):
            assert option in text


@pytest.mark.parametrize("where", [["--config", "FILE", "serve"], ["serve", "--config", "FILE"]])
def test_settings_that_are_wrong_are_named(where, capsys, tmp_path):
    file = tmp_path / "colloque.toml"
    file.write_text("[http]\nporte = 1\n")
    assert main([str(file) if word == "FILE" else word for word in where]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("colloque: `http.porte` is not a setting")


def test_interrupted_before_it_serves(monkeypatch):
    def interrupt(*_: object) -> Config:
        raise KeyboardInterrupt

    monkeypatch.setattr("server.config.load", interrupt)
    assert main(["serve"]) == 130
