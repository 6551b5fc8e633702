"""A throw-away PostgreSQL for the tests: a cluster in a temporary directory, on a Unix socket, gone afterwards.

from tests.postgres import postgres  # noqa: F401   the session fixture

async def test_something(postgres: Cluster):
    store = await Store.open(postgres.database())
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

APT_LINE = "apt-get install -y postgresql"
_SETTINGS = {
    "listen_addresses": "",  # the Unix socket only
    "fsync": "off",  # nothing here outlives the tests
    "shared_buffers": "16MB",
    "max_connections": "50",
    "logging_collector": "off",
}


@dataclass
class Cluster:
    """A running server. Each test takes a database of its own."""

    binaries: Path
    directory: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"postgresql+asyncpg://postgres@/{name}?host={self.directory}"

    def sql(self, statement: str) -> None:
        """Run one statement as the superuser, outside of what is tested."""
        _run(self.binaries / "psql", "-h", self.directory, "-d", "postgres", "-qc", statement)

    def start(self) -> None:
        settings = " ".join(f"-c {name}={value!r}" for name, value in _SETTINGS.items())
        options = f"-k {self.directory} {settings}"
        log = self.directory / "log"
        _run(self.binaries / "pg_ctl", "-D", self.directory / "data", "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        _run(self.binaries / "pg_ctl", "-D", self.directory / "data", "-m", "immediate", "-w", "stop")


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Make, start and remove a cluster. PostgreSQL refuses to run as root, which becomes `postgres` for it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        pytest.fail(f"PostgreSQL is not installed, and the store runs on it too: {APT_LINE}", pytrace=False)
    directory = Path(tempfile.mkdtemp(prefix="colloque-pg-", dir="/tmp"))  # a socket path has at most 107 bytes
    made = Cluster(found[-1].parent, directory)
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
        _run(made.binaries / "initdb", "-D", directory / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for all tests of a run, started by the first that asks."""
    with cluster() as running:
        yield running


def _run(*command: str | Path) -> None:
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["runuser", "-u", "postgres", "--", *words]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/", check=False)
    if done.returncode:
        pytest.fail(f"{command[0]} failed: {done.stderr.strip()}", pytrace=False)
