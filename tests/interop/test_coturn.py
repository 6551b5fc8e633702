"""Debian's coturn with the shipped configuration, tried from outside (SECURITY.md rows 8 to 11 and 22).

The server is in the lab's public namespace, an attacker with good credentials in a home behind a cone NAT. What is
measured here about running allocations is written down in server/signalling/README.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.config import Config, from_tree
from server.errors import ConfigError
from server.ids import new_id
from server.metrics import Metrics
from server.signalling import coturn
from server.signalling.coturn import Coturn
from server.signalling.turn import ALLOCATION_LIFETIME_S, FORBIDDEN_PEERS, render_coturn, rest_credential
from tests.interop import turnclient
from tests.interop.authority import Authority
from tests.interop.natlab import LAB_TIMEOUT_S, PUBLIC_ADDRESS, Lab, Site, wait_until
from tests.interop.turnclient import ALLOCATE, BINDING, CREATE_PERMISSION, REFRESH, TurnClient, fingerprinted, message

pytestmark = pytest.mark.timeout(LAB_TIMEOUT_S)

SECRET = "a-secret-of-the-tests"
MEDIA_ADDRESS = "10.9.8.7"
"""Stands for the media server: private, and allowed by its exact address."""
NEIGHBOUR = "10.9.8.8"
"""Private, up, with a service: what the relay must not reach."""


_source_ports = itertools.count(20_000)
"""Never the same twice: coturn remembers a five-tuple, and who it was, for a while after its allocation."""


class Relay:
    """A running coturn, and clients towards it from one site."""

    def __init__(self, lab: Lab, site: Site, port: int, tls_port: int) -> None:
        self._lab, self._site, self._port, self._tls_port = lab, site, port, tls_port
        self._clients: list[TurnClient] = []

    def client(self, who: str = "", *, lives_s: int = 600, secret: str = SECRET) -> TurnClient:
        """A UDP client with the credentials that `who`, by default somebody new, would be given."""
        with self._site.computer.entered():
            connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            connection.bind(("", next(_source_ports)))
            connection.connect((PUBLIC_ADDRESS, self._port))
        return self._with_credentials(connection, who, lives_s, secret)

    def tls_client(self, context: ssl.SSLContext) -> TurnClient:
        """A client over TLS."""
        with self._site.computer.entered():
            plain = socket.create_connection((PUBLIC_ADDRESS, self._tls_port), 1.0)
        return self._with_credentials(context.wrap_socket(plain, server_hostname="turn.colloque.test"), "", 600, SECRET)

    def _with_credentials(self, connection: socket.socket, who: str, lives_s: int, secret: str) -> TurnClient:
        credentials = rest_credential(secret.encode(), who or new_id(), int(time.time()) + lives_s)
        client = TurnClient(connection, *credentials)
        self._clients.append(client)
        return client

    def answers(self) -> bool:
        """Whether coturn is up."""
        client = self.client()
        try:
            client.exchange(message(BINDING), 0.2)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """End all allocations of this relay's clients."""
        while self._clients:
            client = self._clients.pop()
            if client.relayed:
                with contextlib.suppress(OSError):
                    client.refresh(0)
            client.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.site("cone")
        for address in (MEDIA_ADDRESS, NEIGHBOUR):
            lab.public.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        yield lab


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def start(lab: Lab, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Relay]:
    """Starts one more coturn, on ports of its own, with changes to the settings."""
    certificate = authority.issue("turn.colloque.test")
    ports = iter(range(3478, 4000, 2))

    def run(
        *, edit: Callable[[str], str] = lambda text: text, output: Any = subprocess.DEVNULL, **change: Any
    ) -> Relay:
        port = next(ports)
        turn = {
            "host": "turn.colloque.test",
            "listen_addresses": [PUBLIC_ADDRESS],
            "media_addresses": [MEDIA_ADDRESS],
            "port": port,
            "tls_port": port + 1,
            "tls_cert": str(certificate.chain),
            "tls_key": str(certificate.key),
            "secret": SECRET,
        }
        path = tmp_path_factory.mktemp("coturn") / "coturn.conf"
        path.write_text(edit(render_coturn(from_tree({"turn": turn | change}), SECRET)))
        lab.public.spawn("turnserver", "-c", str(path), output=output)
        relay = Relay(lab, lab.sites[0], port, port + 1)
        wait_until(relay.answers, "coturn")
        return relay

    return run


@pytest.fixture(scope="module")
def shipped(start: Callable[..., Relay]) -> Relay:
    return start()


@pytest.fixture
def relay(shipped: Relay) -> Iterator[Relay]:
    yield shipped
    shipped.release()


def listener(lab: Lab, address: str) -> socket.socket:
    """A UDP service on the server's machine."""
    with lab.public.entered():
        service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        service.bind((address, 0))
    service.settimeout(2.0)
    return service


# -- row 8: where it relays to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [str(address) for network in FORBIDDEN_PEERS if network.version == 4 for address in (network[0], network[-1])]
    + ["169.254.169.254", "10.9.8.6", NEIGHBOUR, "127.0.0.1", "255.255.255.255"],
)
def test_no_special_range_is_relayed_to(relay: Relay, address: str) -> None:
    client = relay.client()
    assert client.allocate().error == 0
    assert client.permit(address).error == 403
    assert client.bind_channel(address).error == 403


def test_a_public_address_is_relayed_to(relay: Relay) -> None:
    """Otherwise the refusals above would prove nothing."""
    client = relay.client()
    client.allocate()
    assert client.permit("45.80.1.99").error == 0
    assert client.bind_channel("8.8.8.8").error == 0


@pytest.mark.parametrize("address", ["::", "::1", "::ffff:10.9.8.8", "::ffff:127.0.0.1", "64:ff9b::a09:808", "fe80::1"])
def test_no_ipv6_way_around(relay: Relay, address: str) -> None:
    """443: a peer of another family than the allocation. 440: no IPv6 to relay from. 403: what remains with IPv6."""
    client = relay.client()
    client.allocate()
    assert client.permit(address).error == 443
    assert client.bind_channel(address).error == 443
    six = relay.client()
    if six.allocate(ipv6=True).error != 440:
        assert six.permit(address).error == 403


def test_coturn_compares_ranges_as_we_think(tmp_path: Path) -> None:
    """coturn's own comparison, from its library: each range holds its ends, and nothing outside, of either family."""
    program = tmp_path / "inrange"
    subprocess.run(
        ["cc", "-x", "c", "-o", str(program), "-", "-lturnclient"],
        input="""
            #include <stdio.h>
            #include <turn/ns_turn_ioaddr.h>
            int main(void) {
                char first[64], last[64], address[64];
                ioa_addr a, b, p;
                ioa_addr_range range;
                while (scanf("%63s %63s %63s", first, last, address) == 3) {
                    if (make_ioa_addr((const uint8_t *)first, 0, &a) || make_ioa_addr((const uint8_t *)last, 0, &b) ||
                        make_ioa_addr((const uint8_t *)address, 0, &p)) return 1;
                    ioa_addr_range_set(&range, &a, &b);
                    puts(ioa_addr_in_range(&range, &p) ? "yes" : "no");
                }
                return 0;
            }""",
        text=True,
        check=True,
    )
    text = render_coturn(from_tree({"turn": {"host": "t", "secret": "s"}}), "s")
    ranges = [
        tuple(map(ipaddress.ip_address, line.partition("=")[2].split("-")))
        for line in text.splitlines()
        if line.startswith("denied-peer-ip")
    ]
    assert len(ranges) == len(FORBIDDEN_PEERS)
    addresses = {
        ipaddress.ip_address(text) for text in ("8.8.8.8", "1.1.1.1", "2a00::1", "::ffff:10.0.0.1", "64:ff9b::1")
    }
    for network in FORBIDDEN_PEERS:
        addresses |= {network[0], network[-1]}
        addresses |= {network[-1] + 1} if int(network[-1]) + 1 < 1 << network.max_prefixlen else set()
    # As `any`, these two stand for no peer; coturn refuses them before it looks at ranges.
    addresses -= {ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::")}
    cases = [(first, last, address) for first, last in ranges for address in sorted(addresses, key=str)]
    answers = subprocess.run(
        [str(program)],
        input="\n".join(" ".join(map(str, case)) for case in cases),
        text=True,
        check=True,
        capture_output=True,
    ).stdout.split()
    assert len(answers) == len(cases)
    for (first, last, address), answer in zip(cases, answers, strict=True):
        inside = address.version == first.version and int(first) <= int(address) <= int(last)
        assert (answer == "yes") is inside, f"{address} in {first}-{last}: coturn says {answer}"


def test_relay_to_relay_carries_data_both_ways(relay: Relay) -> None:
    one, two = relay.client("p1"), relay.client("p2")
    assert one.allocate().error == two.allocate().error == 0
    assert one.relayed and two.relayed and one.relayed[0] == PUBLIC_ADDRESS
    assert one.permit(*two.relayed).error == two.permit(*one.relayed).error == 0
    one.relay(b"there", *two.relayed)
    assert two.relayed_data() == b"there"
    two.relay(b"and back", *one.relayed)
    assert one.relayed_data() == b"and back"


def test_the_media_server_is_reached_and_its_neighbour_is_not(relay: Relay, lab: Lab) -> None:
    client = relay.client()
    client.allocate()
    media, neighbour = listener(lab, MEDIA_ADDRESS), listener(lab, NEIGHBOUR)
    with media, neighbour:
        assert client.permit(MEDIA_ADDRESS).error == 0
        client.relay(b"x", *neighbour.getsockname())
        client.relay(b"hello", *media.getsockname())
        data, peer = media.recvfrom(100)
        assert (data, peer) == (b"hello", client.relayed)
        media.sendto(b"welcome", peer)
        assert client.relayed_data() == b"welcome"
        neighbour.setblocking(False)
        with pytest.raises(BlockingIOError):
            neighbour.recv(100)


def test_no_tcp_relay(relay: Relay) -> None:
    assert relay.client().allocate_tcp().error == 442


def test_nothing_but_turn_listens(relay: Relay, lab: Lab) -> None:
    """No command line, no web administration, no DTLS, no NAT discovery: TURN, its TLS, and relayed UDP ports."""
    found = set()
    for line in lab.public.run("ss", "-Hlnut").splitlines():
        protocol, _, _, _, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        if (protocol, address) != ("udp", PUBLIC_ADDRESS) or int(port) < 49152:
            found.add((protocol, address, int(port)))
    assert found == {
        ("udp", PUBLIC_ADDRESS, 3478),
        ("tcp", PUBLIC_ADDRESS, 3478),
        ("tcp", PUBLIC_ADDRESS, 3479),
    }


# -- row 9: how much --------------------------------------------------------------------------------------------------


def test_one_participant_has_one_quota_over_all_credentials(relay: Relay) -> None:
    """100 allocations under 100 user names of one participant, as 100 refreshes of credentials would give them."""
    errors = [relay.client("greedy", lives_s=600 + number).allocate().error for number in range(100)]
    assert errors == [0] * 24 + [486] * 76
    assert relay.client("modest").allocate().error == 0


def test_everybody_together_has_a_quota(start: Callable[..., Relay]) -> None:
    relay = start(max_allocations=30)
    try:
        errors = [relay.client(f"p{number}").allocate().error for number in range(100)]
        assert errors == [0] * 30 + [486] * 70
    finally:
        relay.release()


# -- row 10: who ------------------------------------------------------------------------------------------------------


def test_expired_credentials_are_refused(relay: Relay) -> None:
    assert relay.client(lives_s=-1).allocate().error == 401


def test_the_wrong_secret_is_refused(relay: Relay) -> None:
    assert relay.client(secret="another").allocate().error == 401


@pytest.mark.parametrize("forge", ["later", "other", "password", "none", "words"])
def test_forged_credentials_are_refused(relay: Relay, forge: str) -> None:
    client = relay.client()
    expiry, _, who = client.username.partition(":")
    match forge:
        case "later":
            client.username = f"{int(expiry) + 3600}:{who}"
        case "other":
            client.username = f"{expiry}:somebody-else"
        case "password":
            client.credential = client.credential[:-2] + ("A=" if client.credential[-2] != "A" else "B=")
        case "none":
            client.username = client.credential = ""
        case "words":
            client.username = f"never:{who}"
    assert client.allocate().error == 401


def test_what_a_running_allocation_can_do_after_its_credentials(start: Callable[..., Relay]) -> None:
    """Measured, and written down in README.md: it lives while refreshed, past new nonces too; no new one is had."""
    relay = start(edit=lambda text: text.replace("stale-nonce=600", "stale-nonce=2"))
    try:
        client = relay.client("removed", lives_s=2)
        assert client.allocate().error == 0
        assert client.lifetime == ALLOCATION_LIFETIME_S
        assert client.refresh(3600).lifetime == ALLOCATION_LIFETIME_S

        def refused() -> bool:
            """The same credentials, from another place. coturn's clock lags by a second or two."""
            again = relay.client()
            again.username, again.credential = client.username, client.credential
            return again.allocate().error == 401

        wait_until(refused, "the credentials expire", 8.0)
        assert client.refresh(600).lifetime == ALLOCATION_LIFETIME_S
        assert client.permit("45.80.1.99").error == 0
    finally:
        relay.release()


# -- row 11: amplification --------------------------------------------------------------------------------------------

_REQUESTED_TRANSPORT = b"\x00\x19\x00\x04\x11\x00\x00\x00"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(message(BINDING), id="binding"),
        pytest.param(fingerprinted(message(BINDING)), id="binding with fingerprint"),
        pytest.param(message(ALLOCATE, _REQUESTED_TRANSPORT), id="allocate"),
        pytest.param(fingerprinted(message(ALLOCATE, _REQUESTED_TRANSPORT)), id="allocate with fingerprint"),
        pytest.param(message(REFRESH, b"\x00\x0d\x00\x04\x00\x00\x00\x00"), id="refresh"),
        pytest.param(
            message(CREATE_PERMISSION, turnclient.peer_attribute("8.8.8.8", 9, bytes(12))), id="create permission"
        ),
    ],
)
def test_strangers_get_at_most_three_times_what_they_send(relay: Relay, request_: bytes) -> None:
    assert relay.client().exchange(request_).size <= 3 * len(request_)


@pytest.mark.parametrize("method", [ALLOCATE, REFRESH, CREATE_PERMISSION, 0x00A])
def test_even_a_bare_header_gets_at_most_three_times_on_the_wire(relay: Relay, method: int) -> None:
    """20 bytes, less than any specified request: 72 come back, which is 2.1 times with IPv4 and UDP headers."""
    reply = relay.client().exchange(message(method))
    assert reply.size == 72
    assert reply.size + 28 <= 3 * (20 + 28)


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x16\xfe\xff" + bytes(200), bytes(1200), b"\x40\x00\x00\x04junk"],
)
def test_strangers_with_junk_get_nothing(relay: Relay, junk: bytes) -> None:
    client = relay.client()
    client.send(junk)
    assert client.exchange(message(BINDING)).size == 32
    with pytest.raises(TimeoutError):
        client.receive(0.05)


# -- TLS --------------------------------------------------------------------------------------------------------------


def test_turn_over_tls_with_a_verified_name(relay: Relay, authority: Authority) -> None:
    client = relay.tls_client(authority.context())
    assert client.allocate().error == 0
    assert client.permit("10.0.0.1").error == 403


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_tls_is_refused(relay: Relay, authority: Authority) -> None:
    context = authority.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):  # an alert, a reset or silence: whatever it is, no TLS
        relay.tls_client(context)


def test_ciphers_without_forward_secrecy_are_refused(relay: Relay, authority: Authority) -> None:
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256:AES256-SHA")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        relay.tls_client(context)


# -- row 22: what it says ---------------------------------------------------------------------------------------------


def test_errors_write_nothing_about_anybody(start: Callable[..., Relay], tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        relay = start(output=output)
    try:
        relay.client("canary-participant", lives_s=-1).allocate()
        client = relay.client("canary-participant")
        client.allocate()
        client.permit("10.66.66.66")
        client.relay(b"x", "10.66.66.66", 9)
    finally:
        relay.release()
    said = (tmp_path / "output").read_bytes()
    for secret in (b"canary", b"10.66.66.66", b"45.80.1", SECRET.encode(), client.credential.encode()):
        assert secret not in said


# -- the supervised child ---------------------------------------------------------------------------------------------


def managed(tmp_path: Path, **change: Any) -> Config:
    """Settings of a coturn on loopback, on a free port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    turn = {"host": "127.0.0.1", "managed": True, "listen_addresses": ["127.0.0.1"], "port": port}
    return from_tree({"data_dir": str(tmp_path / "data"), "turn": turn | change})


async def binding_answered(port: int) -> bool:
    def ask() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.connect(("127.0.0.1", port))
            try:
                TurnClient(connection).exchange(message(BINDING), 0.1)
            except OSError:
                return False
            return True

    return await asyncio.to_thread(ask)


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def child(config: Config) -> int:
    return int((config.data_dir / "coturn.pid").read_text())


async def test_it_serves_from_start_to_stop(tmp_path: Path) -> None:
    config = managed(tmp_path)
    child_ = Coturn(config, "secret")
    await child_.start()
    try:
        await until(lambda: binding_answered(config.turn.port))
        assert stat.S_IMODE((config.data_dir / "coturn.conf").stat().st_mode) == 0o600

        async def left_root() -> bool:
            return Path(f"/proc/{child(config)}").stat().st_uid != 0

        await until(left_root)
    finally:
        pid = child(config)
        await child_.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert not await binding_answered(config.turn.port)
    await child_.stop()


async def test_it_comes_back_and_its_complaints_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coturn, "FIRST_BACKOFF_S", 0.05)
    config, metrics = managed(tmp_path), Metrics()
    child_ = Coturn(config, "secret", metrics)
    await child_.start()
    try:
        await until(lambda: binding_answered(config.turn.port))
        first = child(config)
        os.kill(first, signal.SIGKILL)

        async def another() -> bool:
            return child(config) != first and await binding_answered(config.turn.port)

        await until(another)
        assert metrics.registry.get_sample_value("colloque_coturn_restarts_total") == 1

        def intrude() -> int:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
                connection.connect(("127.0.0.1", config.turn.port))
                return TurnClient(connection, *rest_credential(b"wrong", "p", 1)).allocate().error

        assert await asyncio.to_thread(intrude) == 401

        async def counted() -> bool:
            kind = {"kind": "bad_credentials"}
            return metrics.registry.get_sample_value("colloque_coturn_complaints_total", kind) == 1

        await until(counted)
    finally:
        await child_.stop()


async def test_the_coturn_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    config = managed(tmp_path)
    killed, next_ = Coturn(config, "secret"), Coturn(config, "secret")
    await killed.start()
    try:
        await until(lambda: binding_answered(config.turn.port))
        left = child(config)
        await next_.start()
        try:
            assert child(config) != left
            await until(lambda: binding_answered(config.turn.port))
        finally:
            await next_.stop()
    finally:
        await killed.stop()


async def test_a_missing_coturn_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get install coturn"):
        await Coturn(managed(tmp_path), "secret").start()


async def test_an_unreadable_certificate_is_an_error_not_a_relay_without_tls(tmp_path: Path) -> None:
    config = managed(tmp_path, tls_cert=str(tmp_path / "none.crt"), tls_key=str(tmp_path / "none.key"))
    with pytest.raises(ConfigError, match=r"none\.crt"):
        await Coturn(config, "secret").start()
