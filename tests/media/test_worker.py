"""The media plane on real sockets: peers over loopback, a taken port, a clean end."""

import asyncio
import gc
import os
import socket
import threading
from contextlib import asynccontextmanager

import pytest

from server import clock
from server.config import MediaConfig
from server.errors import ConfigError
from server.media.events import MediaEvent, TransportConnected, TransportFailed
from server.media.fastpath.relay import Event
from server.media.parameters import Endpoint, IceParameters
from server.media.sfu import Sfu
from server.media.worker import LOOK_S, MediaPlane, MediaWorker
from tests.relayed import BINDING_REQUEST
from tests.sfupeers import EXTENSIONS, audio, video
from tests.transportpeers import DtlsPeer, check

SECONDS = 20
LOOPBACK = MediaConfig(bind=("127.0.0.1",), port=0, workers=1)


@asynccontextmanager
async def running(config: MediaConfig = LOOPBACK, **more: bool):
    plane = MediaPlane(config, **more)
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


class Caller(asyncio.DatagramProtocol):
    """A browser as far as ICE and DTLS go."""

    def __init__(self, sfu: Sfu, id: str, room: str, now: float) -> None:
        self.ice = IceParameters(f"{id}ufrag", f"{id}{'p' * 22}")
        self.dtls = DtlsPeer()
        self.local = sfu.open_transport(id, room, id, self.ice, self.dtls.parameters, EXTENSIONS, now)
        self.home = next(each for each in self.local.candidates if each.kind == "udp")
        self.goodbye = asyncio.Event()

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.sendto(check(self.local.ice, self.ice, nominate=True))

    def datagram_received(self, data: bytes, addr) -> None:
        if data[0] == 0x15:
            self.goodbye.set()
        for record in self.dtls.feed([data] if 20 <= data[0] <= 63 else []):
            self.transport.sendto(record)


async def call(plane: MediaPlane, id: str, room: str = "room") -> Caller:
    """Connect, and wait until the media plane says so."""
    connected = asyncio.Event()

    def on_event(event: MediaEvent) -> None:
        if event == TransportConnected(id):
            connected.set()

    plane.on_event = on_event
    loop = asyncio.get_running_loop()
    caller = Caller(plane.sfu(room), id, room, loop.time())
    await loop.create_datagram_endpoint(lambda: caller, remote_addr=caller.home[:2])
    async with asyncio.timeout(SECONDS):
        await connected.wait()
    return caller


async def test_a_peer_connects_and_is_told_when_the_plane_ends():
    async with running() as plane:
        caller = await call(plane, "ada")
        statistics = plane.statistics()
        assert (statistics.workers, statistics.rooms, statistics.transports) == (1, 1, 1)
    async with asyncio.timeout(SECONDS):
        await caller.goodbye.wait()
    caller.transport.close()


async def test_what_signalling_changes_is_drained_by_itself():
    """Nobody calls a verb: closing says goodbye to the peer in the next turn."""
    async with running() as plane:
        caller = await call(plane, "ada")
        plane.sfu("room").close_transport("ada", asyncio.get_running_loop().time())
        async with asyncio.timeout(SECONDS):
            await caller.goodbye.wait()
        caller.transport.close()
        assert plane.statistics().rooms == 0


async def test_trouble_with_one_event_does_not_stop_the_others(capfd):
    async with running() as plane:
        caller = await call(plane, "ada")
        heard: list[str] = []

        def on_event(event: MediaEvent) -> None:
            heard.append(type(event).__name__)
            raise RuntimeError("signalling is broken")

        plane.on_event = on_event
        sfu = plane.sfu("room")
        sfu.publish("ada", video(), asyncio.get_running_loop().time())
        sfu.publish("ada", audio(), asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert heard == ["EncodingsWanted", "SpeakersChanged"]
        caller.transport.close()


async def test_rooms_go_to_the_worker_with_the_fewest_transports():
    async with running(MediaConfig(bind=("127.0.0.1",), port=0, workers=3)) as plane:
        callers = [await call(plane, f"caller{number}", f"room{number}") for number in range(6)]
        assert sorted(worker.sfu.transports for worker in plane._workers) == [2, 2, 2]
        assert all(plane.sfu(f"room{number}").has_room(f"room{number}") for number in range(6))
        assert len({caller.home.port for caller in callers}) == 3
        for caller in callers:
            caller.transport.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_taken_port_is_said_with_what_to_do(kind):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        plane = MediaPlane(MediaConfig(bind=("127.0.0.1",), port=port, workers=1))
        with pytest.raises(ConfigError, match=rf"media\.port: {port} is taken"):
            await plane.start()
    async with running(MediaConfig(bind=("127.0.0.1",), port=port, workers=1)):
        pass


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        (("localhost",), "not names"),
        (("127.0.0.1", "127.0.0.2"), "at most one"),
        (("192.0.2.77",), "cannot be listened"),
    ],
)
async def test_addresses_that_cannot_be(bind, message):
    with pytest.raises(ConfigError, match=message):
        await MediaPlane(MediaConfig(bind=bind, port=0, workers=1)).start()


async def test_what_has_started_is_stopped_when_the_next_does_not_start(monkeypatch):
    start, started = MediaWorker.start, []

    def only_once(worker: MediaWorker) -> None:
        if started:
            raise OSError("no more threads")
        started.append(worker)
        start(worker)

    monkeypatch.setattr(MediaWorker, "start", only_once)
    threads = threading.active_count()
    plane = MediaPlane(MediaConfig(bind=("127.0.0.1",), port=0, workers=2))
    with pytest.raises(OSError, match="no more threads"):
        await plane.start()
    assert threading.active_count() == threads
    assert plane.statistics().workers == 0


async def test_many_events_let_the_others_have_their_turn(monkeypatch):
    """Each event takes as long as a whole look may take: the event loop turns once for each."""
    async with running() as plane:
        (worker,) = plane._workers
        now, turns, seen = [clock.now()], 0, []

        def receive(event: Event, at: float) -> None:
            seen.append(turns)
            now[0] += LOOK_S

        monkeypatch.setattr("server.media.worker.clock.now", lambda: now[0])
        monkeypatch.setattr("server.media.worker.EVENTS_AT_ONCE", 1)
        monkeypatch.setattr(worker.sfu, "_receive_relay_event", receive)
        worker.relay.process([(("192.0.2.1", port, "udp"), BINDING_REQUEST) for port in range(1, 6)], now[0])
        worker._on_events()
        async with asyncio.timeout(SECONDS):
            while len(seen) < 5:
                turns += 1
                await asyncio.sleep(0)
        assert len(set(seen)) == 5


async def test_candidates_are_what_is_announced_or_what_is_there():
    announced = MediaConfig(bind=("127.0.0.1",), port=0, workers=1, addresses=("198.51.100.7", "2001:db8::7"))
    async with running(announced) as plane:
        caller = await call_parameters(plane)
        assert {(each.ip, each.kind) for each in caller} == {("198.51.100.7", "udp"), ("198.51.100.7", "tcp")}
    async with running(MediaConfig(port=0, workers=1, tcp=False), loopback=True) as plane:
        found = await call_parameters(plane)
        assert "127.0.0.1" in {each.ip for each in found}
        assert {each.kind for each in found} == {"udp"}
        assert len({each.port for each in found}) == 1


async def call_parameters(plane: MediaPlane) -> tuple[Endpoint, ...]:
    peer = DtlsPeer()
    now = asyncio.get_running_loop().time()
    return plane.sfu("room").open_transport("ada", "room", "ada", None, peer.parameters, (), now).candidates


async def test_timers_run_by_themselves(monkeypatch):
    monkeypatch.setattr("server.media.ice.GONE_AFTER_S", 0.05)
    async with running() as plane:
        failed = asyncio.Event()
        plane.on_event = lambda event: failed.set() if isinstance(event, TransportFailed) else None
        await call_parameters(plane)
        async with asyncio.timeout(SECONDS):
            await failed.wait()


async def test_start_and_stop_leave_nothing_open():
    async with running():
        pass
    gc.collect()
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        async with running() as plane:
            caller = await call(plane, "ada")
            caller.transport.close()
    await asyncio.sleep(0)
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)
    assert asyncio.all_tasks() == {asyncio.current_task()}
