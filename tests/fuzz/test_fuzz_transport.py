"""Datagrams to the slow path's machines and parsers. Allowed: the parsers' own errors; out of a machine, nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.media.dtls import Certificate, DtlsConnected, DtlsEndpoint
from server.media.ice import IceLiteAgent, local_ufrag
from server.media.rtp.errors import RtcpParseError, RtpParseError
from server.media.rtp.extensions import parse_elements, serialize_elements
from server.media.rtp.keyframe import starts_keyframe
from server.media.rtp.packet import RtpPacket
from server.media.rtp.red import parse_red, serialize_red
from server.media.rtp.rtcp import parse_compound, serialize_compound
from server.media.rtp.twcc import FeedbackBuilder
from tests.fuzz import fuzz
from tests.transportpeers import HOME, LOCAL, REMOTE, WALL, DtlsPeer, check, drain

VECTORS = [
    bytes.fromhex(vector["hex"])
    for vector in json.loads(Path(__file__).parent.parent.joinpath("vectors", "rtcp.json").read_text())
]
CERTIFICATE = Certificate.generate(WALL)


@st.composite
def spoiled(draw, originals):
    """An original with a few bytes changed, cut out, or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from("change cut insert".split())):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case _:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


@fuzz
@given(data=spoiled(VECTORS) | st.binary(max_size=200))
@example(data=bytes.fromhex("8fcd0005 00000001 00000002 0001 0003 00000000 2000 2000"))
@example(data=bytes.fromhex("81cd0004 00000001 00000002 00008001 00010000"))
def test_any_rtcp(data):
    """What parses means the same after a turn through the serialiser."""
    try:
        packets = parse_compound(data)
    except RtcpParseError:
        return
    assert parse_compound(serialize_compound(packets)) == packets


@fuzz
@given(data=st.binary(max_size=200) | st.builds(lambda first, rest: bytes([first]) + rest, st.just(0x90), st.binary()))
def test_any_rtp(data):
    try:
        packet = RtpPacket.parse(data)
        elements = parse_elements(packet.extension_profile, packet.extension)
    except RtpParseError:
        return
    assert RtpPacket.parse(bytes(packet)) == packet
    assert parse_elements(*serialize_elements(elements)) == elements


@fuzz
@given(profile=st.sampled_from([0xBEDE, 0x1000, 0x1007]), data=st.binary(max_size=80))
def test_any_extension(profile, data):
    try:
        elements = parse_elements(profile, data)
    except RtpParseError:
        return
    assert parse_elements(*serialize_elements(elements)) == elements


@fuzz
@given(payload=st.binary(max_size=60))
def test_any_payload(payload):
    for codec in ("VP8", "VP9", "H264", "AV1"):
        assert starts_keyframe(codec, payload) in (True, False)
    try:
        blocks = parse_red(payload)
    except RtpParseError:
        return
    assert parse_red(serialize_red(blocks)) == blocks


@fuzz
@given(log=st.lists(st.lists(st.tuples(st.integers(0, 65535), st.floats(0, 1e6)), max_size=20), max_size=4))
def test_any_arrivals(log):
    """Whatever seqs a peer chooses and whenever they arrive, every message can be sent and read."""
    builder = FeedbackBuilder(1, 2)
    for arrivals in log:
        messages = builder.build(arrivals)
        assert all(parse_compound(serialize_compound([message])) == [message] for message in messages)


@fuzz
@given(data=spoiled([check(nominate=True), check(key="x")]) | st.binary(max_size=100))
def test_any_check(data):
    """Only the untouched check validates; every answer is at most three times the request."""
    agent = IceLiteAgent(LOCAL, REMOTE, now=0.0)
    agent.receive_datagram(data, HOME, 1.0)
    local_ufrag(data)
    assert all(len(answer) <= 3 * len(data) for answer, _ in agent.datagrams_to_send(1.0))
    assert bool(drain(agent)) == agent.is_validated(HOME)
    assert agent.drops.total() == (0 if agent.is_validated(HOME) else 1)


@pytest.fixture(scope="module")
def flights():
    """A handshake's datagrams towards the server, to spoil."""
    peer = DtlsPeer()
    ours = DtlsEndpoint(CERTIFICATE, (peer.fingerprint("sha-256"),), "server")
    hello = peer.feed()
    for data in hello:
        ours.receive_datagram(data, HOME, 0.0)
    return [*hello, *peer.feed([data for data, _ in ours.datagrams_to_send(0.0)])]


@fuzz
@given(data=st.data())
def test_any_dtls(flights, data):
    ours = DtlsEndpoint(CERTIFICATE, (CERTIFICATE.fingerprint,), "server")
    for _ in range(data.draw(st.integers(1, 3))):
        ours.receive_datagram(data.draw(spoiled(flights) | st.binary(max_size=100)), HOME, 0.0)
    ours.handle_timer(1.0)
    ours.datagrams_to_send(1.0)
    assert not drain(ours, DtlsConnected)
