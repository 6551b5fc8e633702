"""coturn as a child of the server, when `[turn] managed = true`. [IO]

`app.py` starts it before the first participant and stops it after the last. If it ends by itself it is started again,
later each time. What it prints holds user names and addresses even without verbosity, so its lines are counted by kind
and never passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import shutil
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import structlog

from server import clock
from server.config import Config
from server.errors import ConfigError
from server.metrics import Metrics
from server.signalling.turn import render_coturn

_log = structlog.get_logger()

PROGRAM = "turnserver"
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 30.0
STEADY_AFTER_S = 60.0
"""After this long in service, the next end counts as the first."""
STOP_PATIENCE_S = 5.0
"""From SIGTERM to SIGKILL; coturn ends within a second."""

_USER = "turnserver"
"""Made by Debian's package; coturn leaves root for it once it has read its keys."""

_KINDS = (
    (b"Cannot find credentials", "bad_credentials"),
    (b"denied in the range", "peer_denied"),
    (b"annot bind", "bind"),
    (b"cannot start TLS", "tls"),
    (b"ERROR", "error"),
)
"""How a line of coturn's log is counted: the first that it contains."""


def load_secret(config: Config) -> str:
    """Return the secret shared with coturn: the configured one, or ours, made once and kept in `data_dir`."""
    if config.turn.secret:
        return config.turn.secret
    path = _private_folder(config) / "turn-secret"
    with contextlib.suppress(FileExistsError):
        _write_private(path, secrets.token_urlsafe(32), os.O_EXCL)
    return path.read_text().strip()


class Coturn:
    """The supervised child.

    Args:
        config: `[turn]` says where it listens; `data_dir` keeps its configuration file, of mode 0600 for the secret.
        secret: As `load_secret` returns it.
        metrics: Where its lines and restarts are counted.
    """

    def __init__(self, config: Config, secret: str, metrics: Metrics | None = None) -> None:
        self._config = config
        self._secret = secret
        self._metrics = metrics
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start coturn and keep it running.

        Raises:
            ConfigError: It is not installed, or its certificate cannot be read: coturn would go on without TLS.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise ConfigError("`turn.managed` needs coturn, which is not installed: apt-get install coturn")
        for path in (self._config.turn.tls_cert, self._config.turn.tls_key):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigError(f"`turn.tls_cert` and `turn.tls_key`: {path} cannot be read")
        folder = _private_folder(self._config)
        configuration = folder / "coturn.conf"
        _write_private(configuration, render_coturn(self._config, self._secret), os.O_TRUNC)
        self._pid_file = folder / "coturn.pid"
        _end_leftover(self._pid_file, configuration)
        command = [program, "-c", str(configuration)]
        if os.geteuid() == 0:
            command += [f"--proc-user={_USER}", f"--proc-group={_USER}"]
        self._process = await self._spawn(command)
        self._supervisor = asyncio.create_task(self._supervise(command))

    async def stop(self) -> None:
        """Stop coturn: calls that it relays end. Safe to call more than once, and before `start`."""
        if self._supervisor is None:
            return
        self._supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._supervisor
        self._supervisor = None
        if self._process is not None:
            await _end(self._process)
            self._process = None
            self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End coturn on the spot, for a process that is about to end in the same way."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _spawn(self, command: list[str]) -> Process:
        # A session of its own: Ctrl-C at the terminal is for the server, which drains its calls before it stops coturn.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
        self._pid_file.write_text(f"{process.pid}\n")
        return process

    async def _supervise(self, command: list[str]) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            assert self._process is not None
            started_at = clock.now()
            last = await self._count_lines(self._process)
            code = await self._process.wait()
            if clock.now() - started_at > STEADY_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            _log.error("coturn.ended", code=code, last_error=last, again_in_s=backoff_s)
            if self._metrics:
                self._metrics.coturn_restarts.inc()
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
            self._process = await self._spawn(command)

    async def _count_lines(self, process: Process) -> str:
        """Read all that coturn prints, until it ends. Returns the kind of the last complaint, "" if there was none."""
        assert process.stdout is not None
        last = ""
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the reader's buffer
                continue
            if not line:
                return last
            kind = next((kind for part, kind in _KINDS if part in line), "")
            if kind:
                last = kind
                if self._metrics:
                    self._metrics.coturn_complaints.labels(kind).inc()


def _private_folder(config: Config) -> Path:
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return config.data_dir


def _write_private(path: Path, text: str, flag: int) -> None:
    """Write a file that only we can read, from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _end_leftover(pid_file: Path, configuration: Path) -> None:
    """End the coturn of a server that was killed: it holds our ports. Nothing else is touched."""
    try:
        pid = int(pid_file.read_text())
        handle = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        if os.fsencode(configuration) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], STOP_PATIENCE_S)
    except OSError:  # it ended meanwhile
        pass
    finally:
        os.close(handle)
