"""Two network namespaces, one for a server and one for its load, joined by a cable. [IO]

    server 10.78.0.1 ──── veth ──── 10.78.0.2 load, and all of 10.79.0.0/16 (AnyIP: not assigned, but local)

Janus, for one, gathers no candidates on loopback. Needs root. Everything is removed at the end, and what an aborted
run left at the beginning.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

SERVER_IP = "10.78.0.1"
FIRST_LOAD_IP = "10.79.0.1"
_LOAD_IP, _LOAD_BLOCK = "10.78.0.2", "10.79.0.0/16"
_SERVER, _LOAD = "clqbench-server", "clqbench-load"
_LOCK = "/run/lock/colloque-benchmark"
_CLONE_NEWNET = 0x40000000


class LabError(Exception):
    """The namespaces cannot be made, or a program in them failed."""


class Lab:
    """The two namespaces. Use as a context manager; one at a time on a machine."""

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise LabError("network namespaces need root")
        self._lock = open(_LOCK, "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another relay benchmark is running") from None
        self._remove()
        for name in (_SERVER, _LOAD):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", _SERVER, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", _LOAD)
        for name, address in ((_SERVER, SERVER_IP), (_LOAD, _LOAD_IP)):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
        _run("ip", "-n", _SERVER, "route", "add", _LOAD_BLOCK, "via", _LOAD_IP)
        _run("ip", "-n", _LOAD, "route", "add", "local", _LOAD_BLOCK, "dev", "lo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        self._lock.close()

    def spawn(
        self,
        argv: Sequence[str],
        core: int,
        output: IO[bytes] | int = subprocess.DEVNULL,
        stdin: int = subprocess.DEVNULL,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a server beside the cable's server end, on one core."""
        return subprocess.Popen(
            ["ip", "netns", "exec", _SERVER, "taskset", "-c", str(core), *argv],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT if output not in (subprocess.DEVNULL, subprocess.PIPE) else None,
            cwd=folder,
            env=env,
            start_new_session=True,
        )

    @contextlib.contextmanager
    def load_side(self) -> Iterator[None]:
        """Within, this thread's new sockets belong to the load's namespace, and stay there afterwards."""
        with _entered(_LOAD):
            yield

    @contextlib.contextmanager
    def server_side(self) -> Iterator[None]:
        """The same for the server's: to ask it something on its loopback."""
        with _entered(_SERVER):
            yield

    def _remove(self) -> None:
        for name in (_SERVER, _LOAD):
            listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in listed.stdout.split():
                if int(pid) != os.getpid():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def stop(process: subprocess.Popen[bytes], patience_s: float = 5.0) -> None:
    """Ask a program of `spawn` to end, then make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")


@contextlib.contextmanager
def _entered(name: str) -> Iterator[None]:
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{name}") as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")
