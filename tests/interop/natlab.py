"""Network namespaces for tests: a public internet, NAT boxes, and homes and clinics behind them. [IO]

            45.80.1.0/24                       45.80.2.0/24
    patient ──── NAT ──────────── public ──────────── NAT ──── clinician
    192.168.1.2                45.80.0.10                      192.168.2.2

The addresses look globally routable, so that the shipped coturn configuration is used unchanged; nothing leaves the
namespaces. Names carry the lab's own prefix: a lab first removes what an aborted run left, and nothing else. It needs
root, and says so by failing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

PREFIX = "clqlab-"
PUBLIC_ADDRESS = "45.80.0.10"
"""The one address of the server, of coturn and of the splitter."""

Kind = Literal["open", "cone", "symmetric", "no-udp", "only-443"]
"""`open`: a public address. `cone`: keeps the port per inside socket. `symmetric`: another port for each destination.
`no-udp`: symmetric, and no UDP passes. `only-443`: symmetric, and lets nothing out but TCP to port 443."""

_LOCK = "/run/lock/colloque-natlab"
_LOCK_PATIENCE_S = 600.0
LAB_TIMEOUT_S = _LOCK_PATIENCE_S + 120.0
"""For one test, the first of which may wait for the lab of another run."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab could not be set up, or one of its programs failed; says which command and what it said."""


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Namespace:
    """One network namespace and the programs that the lab started in it."""

    def __init__(self, label: str) -> None:
        self.name = PREFIX + label
        self._processes: list[subprocess.Popen[bytes]] = []
        _run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *argv: str) -> str:
        """Run a command to its end.

        Raises:
            LabError: It failed.
        """
        return _run("ip", "netns", "exec", self.name, *argv)

    def spawn(
        self, *argv: str, output: IO[bytes] | int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program; the lab stops it, with all that it started, at the end."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output != subprocess.DEVNULL else subprocess.DEVNULL,
            env=None if env is None else {**os.environ, **env},
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within, this thread's new sockets belong to the namespace, and stay there afterwards."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def hosts(self, names: Mapping[str, str]) -> None:
        """Give the programs of this namespace an /etc/hosts of their own."""
        folder = Path("/etc/netns") / self.name
        folder.mkdir(parents=True, exist_ok=True)
        # With the final dot too: Chromium asks for STUN servers so, and a hosts file is compared literally.
        lines = ["127.0.0.1 localhost", *(f"{address} {name} {name}." for name, address in names.items())]
        (folder / "hosts").write_text("\n".join(lines) + "\n")

    def wrapper(self, program: str, path: Path) -> Path:
        """Write a script at `path` that runs `program` inside the namespace, open pipes included."""
        path.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {program} "$@"\n')
        path.chmod(0o755)
        return path

    def close(self) -> None:
        """Stop the programs, then remove the namespace."""
        for process in self._processes:
            stop(process)
        _remove(self.name)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


def stop(process: subprocess.Popen[bytes], patience_s: float = 5.0) -> None:
    """Ask a program and its children to end, then make them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _remove(name: str) -> None:
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        Path("/etc/netns").rmdir()


def remove_leftovers() -> None:
    """Remove every namespace of ours that an aborted run left behind, with its programs and files."""
    for line in _run("ip", "netns", "list").splitlines():
        if line.startswith(PREFIX):
            _remove(line.split()[0])
    for folder in Path("/etc/netns").glob(PREFIX + "*"):
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(ready: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Poll until something is true.

    Raises:
        LabError: It did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


class Site:
    """A home or a clinic: one namespace with the person's computer, behind a NAT box of its own unless `open`."""

    def __init__(self, lab: Lab, number: int, kind: Kind) -> None:
        self.kind = kind
        self._number = number
        self._lab = lab
        self.computer = Namespace(f"site{number}")
        self._router: Namespace | None = None
        near = self._near = f"s{number}"
        public_side, outside = (f"45.80.{number}.1", f"45.80.{number}.2")
        self._inside, self._gateway = f"192.168.{number}.2", f"192.168.{number}.1"
        if kind == "open":
            self._plug(lab.public, near, public_side, self.computer, outside)
            self._gateway, self._inside = public_side, outside
        else:
            router = self._router = Namespace(f"nat{number}")
            self._plug(lab.public, near, public_side, router, outside, device="out")
            router.run("ip", "route", "add", "default", "via", public_side)
            self._plug(router, "in", self._gateway, self.computer, self._inside)
            router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            self._set_up_nat(router)
        self.computer.run("ip", "route", "add", "default", "via", self._gateway)

    @staticmethod
    def _plug(
        one: Namespace, one_device: str, one_address: str, two: Namespace, two_address: str, device: str = "eth0"
    ) -> None:
        """Lay a cable between two namespaces."""
        two_end = ("peer", "name", device, "netns", two.name)
        one.run("ip", "link", "add", one_device, "type", "veth", *two_end)
        for namespace, name, address in ((one, one_device, one_address), (two, device, two_address)):
            namespace.run("ip", "address", "add", f"{address}/24", "dev", name)
            namespace.run("ip", "link", "set", name, "up")

    def _set_up_nat(self, router: Namespace) -> None:
        random = ["--random-fully"] if self.kind != "cone" else []
        router.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "out", "-j", "MASQUERADE", *random)
        # Silence towards the outside: a reply to a packet that came too early would take the port that the NAT keeps.
        router.run("iptables", "-A", "INPUT", "-i", "out", "-j", "DROP")
        if self.kind == "no-udp":
            router.run("iptables", "-A", "FORWARD", "-p", "udp", "-j", "DROP")
        if self.kind == "only-443":
            only = ["-i", "in", "-p", "tcp", "--dport", "443", "-j", "ACCEPT"]
            router.run("iptables", "-A", "FORWARD", *only)
            router.run("iptables", "-A", "FORWARD", "-i", "in", "-j", "DROP")

    def unplug(self) -> None:
        """Take the computer's network away: the interface goes down, as a Wi-Fi does, and the browser is told."""
        self.computer.run("ip", "link", "set", "eth0", "down")

    def plug_in(self) -> None:
        """Give it back, with the same address and route."""
        self.computer.run("ip", "link", "set", "eth0", "up")
        self.computer.run("ip", "route", "replace", "default", "via", self._gateway)

    def lose_uplink(self) -> None:
        """Lose everything behind the NAT box: the computer sees an interface that is up, and silence."""
        self._nat_box.run("iptables", "-I", "FORWARD", "-j", "DROP")

    def regain_uplink(self) -> None:
        """Undo `lose_uplink`."""
        self._nat_box.run("iptables", "-D", "FORWARD", "-j", "DROP")

    def lose_at_random(self, part: float) -> None:
        """Lose this part of all UDP packets, each way, each by itself; 0 ends it."""
        box, rule = self._nat_box, ["-p", "udp", "-m", "statistic", "--mode", "random", "--probability"]
        box.run("sh", "-c", "iptables -F LOSS 2>/dev/null || { iptables -N LOSS && iptables -I FORWARD -j LOSS; }")
        if part:
            for device in ("in", "out"):
                box.run("iptables", "-A", "LOSS", "-i", device, *rule, f"{part:.6f}", "-j", "DROP")

    def lost(self) -> tuple[int, int]:
        """Return how many packets `lose_at_random` has lost: of those from the computer, of those to it."""
        listed = self._nat_box.run("iptables", "-L", "LOSS", "-v", "-x", "-n").splitlines()
        up, down = (int(line.split()[0]) for line in listed if "DROP" in line)
        return up, down

    def move(self) -> str:
        """Change to another network: a new address and default route, the old ones gone. Returns the new address.

        As from one Wi-Fi to another: the NAT box has another inside network from now on. What comes back for the old
        address is lost.
        """
        router = self._nat_box
        gateway, inside = f"10.7.{self._number}.1", f"10.7.{self._number}.2"
        router.run("ip", "address", "flush", "dev", "in")
        router.run("ip", "address", "add", f"{gateway}/24", "dev", "in")
        self.computer.run("ip", "address", "flush", "dev", "eth0")
        self.computer.run("ip", "address", "add", f"{inside}/24", "dev", "eth0")
        self.computer.run("ip", "route", "replace", "default", "via", gateway)
        self._gateway, self._inside = gateway, inside
        return inside

    @property
    def cable(self) -> str:
        """The device of the public namespace that leads here."""
        return self._near

    @property
    def _nat_box(self) -> Namespace:
        if self._router is None:
            raise LabError("an open site has no NAT box")
        return self._router

    def close(self) -> None:
        """Remove the namespaces of this site, and its cable: the kernel is slow to remove those of dead namespaces."""
        self.computer.close()
        if self._router:
            self._router.close()
        self._lab.public.run("sh", "-c", f"ip link delete {self._near} 2>/dev/null || true")


class Lab:
    """The public internet and the sites around it. Use as a context manager; only one exists at a time on a machine."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise LabError("network namespaces need root: run these tests as root")
        self._lock = _locked()
        remove_leftovers()
        self.sites: list[Site] = []
        self._numbers = itertools.count(1)
        self.public = Namespace("public")
        self.public.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.public.run("ip", "address", "add", f"{PUBLIC_ADDRESS}/32", "dev", "lo")
        # coturn takes a namespace without a default route for a machine without a network, and loses allocations.
        self.public.run("ip", "route", "add", "default", "dev", "lo")

    def site(self, kind: Kind) -> Site:
        """Build one more home or clinic."""
        site = Site(self, next(self._numbers), kind)
        self.sites.append(site)
        return site

    def part(self, one: Site, other: Site) -> None:
        """Let nothing pass between two sites any more; both still reach the public address."""
        for here, there in ((one, other), (other, one)):
            self.public.run("iptables", "-I", "FORWARD", "-i", here.cable, "-o", there.cable, "-j", "DROP")

    def clear(self) -> None:
        """Remove the sites, keep the public part and its programs."""
        while self.sites:
            self.sites.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.clear()
            self.public.close()
            remove_leftovers()
        finally:
            self._lock.close()


def _locked() -> IO[str]:
    """Wait until no other lab is up on this machine; closing the file lets the next one in."""
    lock = open(_LOCK, "w")  # noqa: SIM115  (held for the life of the lab)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise LabError(f"another lab has held {_LOCK} for {_LOCK_PATIENCE_S:g} s") from None
            time.sleep(0.2)
