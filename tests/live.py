"""A real server for tests: `python -m server serve` as a child process, on a free loopback port, in its own folder.

    async with live_server(log={"level": "debug"}) as live:
        room = await live.room()
        url = await live.link(room, "patient", name="Ada")

It must be ready within 40 s, and end with status 0 within 20 s of the SIGTERM that the end of the block sends: a bound
for machines that do other things too, and none of the server's own.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from server.ids import new_id
from server.records import Role, RoomRecord, Tenant, Topology
from server.store import Store

ROOT = Path(__file__).resolve().parent.parent
_READY_S = 40.0
_STOP_S = 20.0


class Live:
    """The running server. `origin` is where it answers, `api` a client session with the API key of `tenant`."""

    def __init__(self, data_dir: Path, tenant: Tenant, store: Store, key: str, program: str) -> None:
        self.data_dir = data_dir
        self.tenant = tenant
        self.store = store
        """The same database, opened from the test: for looking, and for what the API has no words for."""
        self.key = key
        self.program = program
        self.port = 0
        self.origin = ""
        self.public_origin = ""
        """What links begin with: `origin`, unless `http.public_url` says otherwise."""
        self.process: asyncio.subprocess.Process
        self.api: aiohttp.ClientSession
        self._log: list[str] = []
        self._output: list[str] = []
        self._readers: list[asyncio.Task[None]] = []
        self._streams_open = 2
        self._news = asyncio.Event()

    @property
    def log(self) -> str:
        """All that the server wrote to standard error."""
        return "".join(self._log)

    @property
    def output(self) -> str:
        """All that the server wrote to standard output."""
        return "".join(self._output)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of the log."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    async def event(self, name: str) -> dict[str, Any]:
        """Return the first event of this name in the log, waiting for it if need be."""
        await self._until(lambda: any(event["event"] == name for event in self.events))
        return next(event for event in self.events if event["event"] == name)

    async def printed(self, text: str) -> str:
        """Return standard output once this text is in it."""
        await self._until(lambda: text in self.output)
        return self.output

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(_READY_S):
            while not true():
                assert self._streams_open, f"the server ended too early:\n{self.log}"
                self._news.clear()
                await self._news.wait()

    async def room(self, *, reference: str = "", topology: Topology | None = None) -> RoomRecord:
        """Open a room of the tenant."""
        return await self.store.create_room(self.tenant.slug, reference, topology)

    async def link(
        self,
        room: RoomRecord,
        role: Role,
        *,
        name: str = "",
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        single_use: bool = True,
    ) -> str:
        """Invite somebody; return the address to open."""
        _, secret = await self.store.mint_link(room, role, name, not_before, expires_at, single_use)
        return f"{self.origin}/t/{self.tenant.slug}/r#{secret}"

    async def start(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Start the process and wait until /readyz says yes."""
        self._started_with = arguments, environment
        self._streams_open = 2
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self.program, "serve", *arguments,
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout and self.process.stderr
        self._readers = [
            asyncio.create_task(self._read(self.process.stdout, self._output)),
            asyncio.create_task(self._read(self.process.stderr, self._log)),
        ]
        try:
            listening = await self.event("listening")
            self.port, self.public_origin = listening["port"], listening["origin"]
            behind_a_name = "COLLOQUE_HTTP__PUBLIC_URL" in environment
            self.origin = f"http://localhost:{self.port}" if behind_a_name else self.public_origin
            self.api = aiohttp.ClientSession(self.origin, headers={"Authorization": f"Bearer {self.key}"})
            async with asyncio.timeout(_READY_S):
                while not await self._is_ready():  # noqa: ASYNC110  (another process)
                    await asyncio.sleep(0.05)
        except BaseException:
            await self.kill()
            raise

    async def _is_ready(self) -> bool:
        """Ask: a store that answers too late for one question may be in time for the next."""
        async with self.api.get("/readyz", ssl=False) as answer:
            return answer.status == 200

    async def _read(self, stream: asyncio.StreamReader, into: list[str]) -> None:
        while line := await stream.readline():
            into.append(line.decode())
            self._news.set()
        self._streams_open -= 1
        self._news.set()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the server, wait for its end, and return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_S):
                status = await self.process.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"the server did not end within {_STOP_S} s:\n{self.log}") from None
        await asyncio.gather(*self._readers)
        return status

    async def restart(self) -> None:
        """Start again after `stop`, on the same port with the same data; `log` and `output` begin anew."""
        await self.api.close()
        self._log.clear()
        self._output.clear()
        arguments, environment = self._started_with
        await self.start(arguments, {**environment, "COLLOQUE_HTTP__PORT": str(self.port)})

    async def kill(self) -> None:
        """End the process without a chance to clean up."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._readers)


def environment_of(settings: Mapping[str, Any], prefix: str = "COLLOQUE_") -> dict[str, str]:
    """Return settings as environment variables, `{"http": {"port": 0}}` as `COLLOQUE_HTTP__PORT=0`."""
    variables: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            variables |= environment_of(value, f"{prefix}{name.upper()}__")
        else:
            joined = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            variables[prefix + name.upper()] = str(joined)
    return variables


@contextlib.asynccontextmanager
async def live_server(
    *arguments: str,
    tenant: Mapping[str, Any] | None = None,
    expect_status: int = 0,
    program: str = "server",
    **settings: Any,
) -> AsyncIterator[Live]:
    """Run a server with a tenant, an API key and the given settings, and stop it cleanly at the end.

    Args:
        arguments: More of `colloque serve`'s, such as `--demo`.
        tenant: Members of its `Tenant`; by default "clinique", in French, that nobody may embed.
        expect_status: What the process must end with.
        program: A module that takes `serve` and its arguments.
        settings: Sections and settings as in the TOML file: `http={"header_timeout_s": 1}`.
    """
    with tempfile.TemporaryDirectory(prefix="colloque-test-") as folder:
        data_dir = Path(folder)
        base: dict[str, Any] = {
            "data_dir": data_dir,
            "http": {"port": 0},
            "media": {"port": 0, "workers": 1},
            "log": {"format": "json"},
        }
        merged = {
            **base, **settings,
            **{name: {**base[name], **settings.get(name, {})} for name in ("http", "media", "log")},
        }  # fmt: skip
        url = settings.get("store", {}).get("url") or f"sqlite+aiosqlite:///{data_dir / 'colloque.db'}"
        store = await Store.open(url)
        try:
            owner = await store.create_tenant(
                Tenant(**{"slug": "clinique", "name": "Clinique du Parc", **(tenant or {})})
            )
            _, key = await store.add_api_key(owner.slug, f"tests {new_id()}")
            live = Live(data_dir, owner, store, key, program)
            outside = {name: value for name, value in os.environ.items() if not name.startswith("COLLOQUE_")}
            await live.start(arguments, {**outside, **environment_of(merged)})
            try:
                yield live
            finally:
                await live.api.close()
                status = await live.stop()
            assert status == expect_status, f"the server ended with {status}:\n{live.log}"
        finally:
            await store.close()
