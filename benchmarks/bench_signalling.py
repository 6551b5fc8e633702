"""Signalling: relayed messages per CPU-second against a bare aiohttp relay, idle connections, joins per second. [IO]

Method and meaning of each figure: README.md. The load comes from this process over loopback sockets; the servers are
processes of their own, and what they cost is read from the kernel (CPU time, unique memory).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Figures, percentile, progress
from benchmarks.wsclient import Client, allow_files, connect, frame
from tests.live import Live, live_server

_ROOT = Path(__file__).resolve().parent.parent
PAIRS = 16
"""Consultations that signal at once while messages are relayed."""
CANDIDATES_PER_DESCRIPTION = 8
"""As in a call between two browsers here: one offer or answer each, and about eight trickled candidates."""
CANDIDATE_BYTES = 200
DESCRIPTION_BYTES = 4096
BATCHES = 120
"""Of one description and its candidates, sent by each side of each pair in one run."""
JOINS = 400
"""People who join in one run, two to a room."""
JOINING_AT_ONCE = 8
"""Rooms that fill at the same time."""
ARRIVING_AT_ONCE = 50
"""Patients on their way into the waiting rooms, while the idle connections are opened."""
SOURCES = 8
"""Loopback addresses that the connections come from."""

_NO_LIMITS: dict[str, Any] = {
    "http": {"max_connections_per_address": 1_000_000, "max_joins_per_address_per_minute": 10_000_000},
    "signalling": {"messages_per_second": 1e9, "message_burst": 1_000_000_000},
}
"""One machine plays ten thousand people here; the limits per person and address are tested elsewhere."""

_NEWS = (b'{"type":"visitors"', b'{"type":"state"', b'{"type":"peerJoined"', b'{"type":"peerChanged"')
"""What a conversation that has just begun still brings, besides what is relayed."""
_TROUBLE = (b'{"type":"problem"', b'{"type":"refused"', b'{"type":"peerLeft"')

_TIMEOUT_S = 120
_WARM_UP = 200
"""Idle connections before the memory is first read, so that what is shared by all is not counted to each."""
_HOLD_S = 20.0
"""Idle connections are watched for this long: more than ten heartbeats, five times what the server calls dead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to measure."""
    parser.add_argument("--runs", type=int, default=5, help="of the relay and of the joins (default: %(default)s)")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections to hold (default: %(default)s)")


async def run(arguments: argparse.Namespace) -> Figures:
    """Measure all three."""
    figures = Figures(arguments.runs)
    await _relaying(figures, arguments.runs)
    await _joining(figures, arguments.runs)
    await _idling(figures, arguments.idle)
    return figures


# -- relayed messages per CPU-second -----------------------------------------------------------------------------------


async def _relaying(figures: Figures, runs: int) -> None:
    async with live_server(**_NO_LIMITS) as live, _bare_relay() as (bare, port):
        ours = await _consultations(live)
        theirs = await _bare_pairs(port)
        server = psutil.Process(live.process.pid)
        for number in range(runs + 1):
            mine = await _relay_run(ours, server)
            plain = await _relay_run(theirs, bare)
            if number == 0:
                continue  # caches and allocators warm up
            progress(f"relay {number}/{runs}: {mine:,.0f} a CPU-second, bare aiohttp {plain:,.0f}, {mine / plain:.2f}")
            figures.add("messages_per_cpu_second.ratio_to_bare_aiohttp", "ratio", mine / plain)
            figures.add("messages_per_cpu_second", "messages/s", mine)
            figures.add("messages_per_cpu_second.bare_aiohttp", "messages/s", plain)
        for client in (client for pair in (*ours, *theirs) for client, _ in pair.sides):
            client.close()


@dataclass
class _Pair:
    """Two connections that hear each other, each with the frames of one batch to the other."""

    sides: tuple[tuple[Client, bytes], tuple[Client, bytes]]

    async def exchange(self, batches: int) -> None:
        """Send batches in turn; the next leaves when the last has arrived, as an answer follows an offer."""
        (one, to_other), (other, to_one) = self.sides
        finished = asyncio.get_running_loop().create_future()
        size, left = 1 + CANDIDATES_PER_DESCRIPTION, 2 * batches

        def counter(answer: Client, frames: bytes) -> Callable[[bytes], None]:
            arrived = 0

            def on_message(payload: bytes) -> None:
                nonlocal arrived, left
                if payload.startswith(_NEWS):
                    return
                if payload.startswith(_TROUBLE) and not finished.done():
                    finished.set_exception(RuntimeError(f"not relayed: {payload!r}"))
                arrived += 1
                if arrived % size == 0:
                    left -= 1
                    if left > 0:
                        answer.send_frames(frames)
                    elif not finished.done():
                        finished.set_result(None)

            return on_message

        one.on_message = counter(one, to_other)
        other.on_message = counter(other, to_one)
        one.send_frames(to_other)
        await finished


async def _relay_run(pairs: Sequence[_Pair], server: psutil.Process) -> float:
    """Return how many messages the server relayed per second of its CPU time."""
    before = _cpu_seconds(server)
    async with asyncio.timeout(_TIMEOUT_S):
        await asyncio.gather(*(pair.exchange(BATCHES) for pair in pairs))
    messages = len(pairs) * 2 * BATCHES * (1 + CANDIDATES_PER_DESCRIPTION)
    return messages / (_cpu_seconds(server) - before)


async def _consultations(live: Live) -> list[_Pair]:
    """Fill rooms of our server with a clinician and a patient each."""
    pairs = []
    for _ in range(PAIRS):
        clinician, patient = await _fill(live, await _invite_two(live))
        sides = ((clinician.client, _batch(patient.id)), (patient.client, _batch(clinician.id)))
        pairs.append(_Pair(sides))
    return pairs


async def _bare_pairs(port: int) -> list[_Pair]:
    origin = f"http://127.0.0.1:{port}"
    batch = _batch("x" * 22)
    pairs = []
    for number in range(PAIRS):
        one = await connect(port, f"/ws?pair={number}", origin)
        other = await connect(port, f"/ws?pair={number}", origin)
        pairs.append(_Pair(((one, batch), (other, batch))))
    return pairs


def _batch(to: str) -> bytes:
    """Return the frames of one description and its candidates."""
    candidate = "candidate:842163049 1 udp 1677729535 198.51.100.23 46154 typ srflx raddr 10.1.2.3 rport 46154"
    trickled = {"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0}
    one = _padded({"type": "candidate", "to": to, "candidate": trickled}, CANDIDATE_BYTES)
    description = {"type": "offer", "sdp": _sdp(DESCRIPTION_BYTES - 120)}
    offer = json.dumps({"type": "description", "to": to, "description": description}, separators=(",", ":")).encode()
    return frame(offer) + frame(one) * CANDIDATES_PER_DESCRIPTION


def _padded(message: dict[str, Any], size: int) -> bytes:
    """Return a message as JSON of a given size, filled up as browsers do, with a candidate's extensions."""
    text = json.dumps(message, separators=(",", ":"))
    message["candidate"]["candidate"] += " ufrag " + "x" * max(4, size - len(text) - 7)
    return json.dumps(message, separators=(",", ":")).encode()


def _sdp(size: int) -> str:
    """Return an offer of sound, picture and a data channel, with as many video codecs as it takes to have this size."""
    fingerprint = ":".join(["AB"] * 32)
    shared = [
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:Yu2x",
        "a=ice-pwd:rm5ZQW1kVxGmYBHkGvz2nbnG",
        "a=ice-options:trickle",
        f"a=fingerprint:sha-256 {fingerprint}",
        "a=setup:actpass",
    ]
    extensions = (
        "urn:ietf:params:rtp-hdrext:toffset",
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "urn:ietf:params:rtp-hdrext:sdes:mid",
    )
    mapped = [f"a=extmap:{number} {uri}" for number, uri in enumerate(extensions, 1)]
    lines = [
        "v=0", "o=- 4611731400430051336 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1 2",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111", *shared, "a=mid:0", *mapped, "a=sendrecv", "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2", "a=rtcp-fb:111 transport-cc", "a=fmtp:111 minptime=10;useinbandfec=1",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", *shared, "a=mid:2", "a=sctp-port:5000",
        "m=video 9 UDP/TLS/RTP/SAVPF 96", *shared, "a=mid:1", *mapped, "a=sendrecv", "a=rtcp-mux", "a=rtcp-rsize",
    ]  # fmt: skip
    payload_type = 96
    while True:
        codec = [
            f"a=rtpmap:{payload_type} H264/90000",
            *(
                f"a=rtcp-fb:{payload_type} {kind}"
                for kind in ("goog-remb", "transport-cc", "ccm fir", "nack", "nack pli")
            ),
            f"a=fmtp:{payload_type} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
            f"a=rtpmap:{payload_type + 1} rtx/90000",
            f"a=fmtp:{payload_type + 1} apt={payload_type}",
        ]
        text = "\r\n".join([*lines, *codec]) + "\r\n"
        if len(json.dumps(text)) > size:
            return "\r\n".join(lines) + "\r\n"
        lines += codec
        payload_type += 2


@contextlib.asynccontextmanager
async def _bare_relay() -> AsyncIterator[tuple[psutil.Process, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bare_relay", cwd=_ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        yield psutil.Process(process.pid), int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


# -- joins -------------------------------------------------------------------------------------------------------------


async def _joining(figures: Figures, runs: int) -> None:
    async with live_server(**_NO_LIMITS) as live:
        for number in range(runs + 1):
            invitations = [await _invite_two(live) for _ in range(JOINS // 2)]
            waiting = iter(invitations)
            times: list[float] = []
            started = time.perf_counter()
            async with asyncio.timeout(_TIMEOUT_S), asyncio.TaskGroup() as workers:
                for _ in range(JOINING_AT_ONCE):
                    workers.create_task(_join_all(live, waiting, times))
            rate = len(times) / (time.perf_counter() - started)
            if number == 0:
                continue
            p99 = percentile(times, 0.99) * 1000
            progress(f"joins {number}/{runs}: {rate:.0f} a second, p99 {p99:.0f} ms")
            figures.add("joins_per_second", "joins/s", rate)
            figures.add("join_p99_ms", "ms", p99)


async def _join_all(live: Live, invitations: Iterator[tuple[str, str]], times: list[float]) -> None:
    for invitation in invitations:
        people = await _fill(live, invitation)
        times += [person.seconds for person in people]
        for person in people:
            person.client.close()


async def _invite_two(live: Live) -> tuple[str, str]:
    """Return the secrets of a clinician and a patient for a new room."""
    room = await live.room()
    _, clinician = await live.store.mint_link(room, "clinician", "Dr Martin")
    _, patient = await live.store.mint_link(room, "patient", "Ada")
    return clinician, patient


async def _fill(live: Live, secrets: tuple[str, str]) -> tuple[_Person, _Person]:
    """Bring a clinician and a patient into the conversation, as their pages do."""
    clinician, patient = await asyncio.gather(*(_Person.enter(live, secret, "joined") for secret in secrets))
    await asyncio.gather(clinician.there, patient.there)
    return clinician, patient


class _Person:
    """A participant's page, as far as its messages go: takes every step as soon as it may; clinicians admit all.

    `there` is done when it has come where it wanted to, after `seconds` since it began to connect.
    """

    def __init__(self, client: Client, goal: str, started: float) -> None:
        self.client = client
        self.id = ""
        self.refusal = ""
        self.there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seconds = 0.0
        self._goal = goal
        self._started = started
        self._state = ""
        client.on_message = self._on_message

    @classmethod
    async def enter(cls, live: Live, secret: str, goal: str, source: str = "127.0.0.1") -> _Person:
        """Connect and say hello.

        Args:
            live: The server.
            secret: Of the link.
            goal: The state to reach, `waiting` or `joined`.
            source: Our loopback address.
        """
        started = time.perf_counter()
        client = await connect(int(live.origin.rpartition(":")[2]), "/ws", live.origin, source)
        person = cls(client, goal, started)
        person._send(type="hello", version=1, tenant=live.tenant.slug, instance="bench", secret=secret)
        return person

    def _send(self, **message: Any) -> None:
        self.client.send(json.dumps(message).encode())

    def _on_message(self, payload: bytes) -> None:
        message = json.loads(payload)
        kind = message["type"]
        if kind in ("welcome", "state"):
            self.id = message.get("id", self.id)
            self._step(message["state"])
        elif kind == "visitors":
            for visitor in message["visitors"]:
                if visitor["state"] == "waiting":
                    self._send(type="admit", participant=visitor["id"])
        elif kind in ("refused", "problem"):
            self.refusal = message["code"]
            if not self.there.done():
                self.there.set_exception(RuntimeError(f"{kind}: {self.refusal}"))

    def _step(self, state: str) -> None:
        if state == self._state:
            return
        self._state = state
        if state == self._goal:
            self.seconds = time.perf_counter() - self._started
            self.there.set_result(None)
        elif state == "arrived":
            self._send(type="ready")
        elif state == "admitted":
            self._send(type="join")


# -- idle connections --------------------------------------------------------------------------------------------------


async def _idling(figures: Figures, count: int) -> None:
    """Fill that many waiting rooms, one patient in each, and see what holding them costs."""
    allow_files(count + _WARM_UP + 500)
    async with live_server(**_NO_LIMITS) as live:
        server = psutil.Process(live.process.pid)
        progress(f"idle: inviting {count + _WARM_UP} patients")
        invitations = [await _invite(live) for _ in range(count + _WARM_UP)]
        people = await _wait_all(live, invitations[:_WARM_UP])
        empty_bytes = server.memory_full_info().uss
        people += await _wait_all(live, invitations[_WARM_UP:])
        held_bytes = server.memory_full_info().uss
        pings, cpu, started = sum(person.client.pings for person in people), _cpu_seconds(server), time.perf_counter()
        await asyncio.sleep(_HOLD_S)
        elapsed = time.perf_counter() - started
        busy = (_cpu_seconds(server) - cpu) / elapsed
        pings = sum(person.client.pings for person in people) - pings
        alive = sum(not person.client.lost.done() for person in people)
        progress(
            f"idle: {alive} of {len(people)} connections after {elapsed:.0f} s,"
            f" {pings / elapsed:,.0f} heartbeats a second, {busy:.0%} of a core"
        )
        if alive < len(people):
            raise RuntimeError(
                f"lost idle connections: {Counter(p.refusal or 'cut' for p in people if p.client.lost.done())}"
            )
        figures.add("idle_connections", "connections", alive)
        figures.add("idle_connection_kib", "KiB", (held_bytes - empty_bytes) / 1024 / count)
        figures.add("idle_heartbeats_cpu", "cores", busy)
        for person in people:
            person.client.close()


async def _wait_all(live: Live, secrets: Sequence[str]) -> list[_Person]:
    """Bring everybody into their waiting rooms, a few at a time."""
    people: list[_Person] = []
    at_once = asyncio.Semaphore(ARRIVING_AT_ONCE)

    async def arrive(number: int, secret: str) -> None:
        async with at_once:
            person = await _Person.enter(live, secret, "waiting", f"127.0.0.{2 + number % SOURCES}")
            await person.there
            people.append(person)
            if len(people) % 1000 == 0:
                progress(f"idle: {len(people)} wait")

    async with asyncio.timeout(_TIMEOUT_S * 3), asyncio.TaskGroup() as arrivals:
        for number, secret in enumerate(secrets):
            arrivals.create_task(arrive(number, secret))
    return people


async def _invite(live: Live) -> str:
    """Return a patient's secret for a room of its own."""
    _, secret = await live.store.mint_link(await live.room(), "patient", "Ada")
    return secret


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
