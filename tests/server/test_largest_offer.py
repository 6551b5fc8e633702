"""The largest offer and answer that a room can need: they fit into one message."""

import json
import re

import pytest

from server.ids import new_id
from server.media.parameters import (
    DtlsParameters,
    Endpoint,
    Fingerprint,
    IceParameters,
    LocalParameters,
    SendParameters,
)
from server.signalling.connections import MAX_SENDING
from server.signalling.media_negotiation import MAX_SECTIONS
from server.signalling.messages import MAX_MESSAGE_BYTES, RelayOffer, decode, encode
from server.signalling.relaying import MAX_DEVICE_SOURCES, RelayedRoom
from tests import offers
from tests.server.test_relaying import FakeSfu

PEOPLE = 12
HIGH = "".join(
    f"a={line}\r\n"
    for line in (
        "rtpmap:118 H264/90000", "rtcp-fb:118 goog-remb", "rtcp-fb:118 transport-cc", "rtcp-fb:118 ccm fir",
        "rtcp-fb:118 nack", "rtcp-fb:118 nack pli",
        "fmtp:118 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c34",
        "rtpmap:119 rtx/90000", "fmtp:119 apt=118",
    )
)  # fmt: skip
"""The profile that Chromium adds where the device encodes H.264 itself; the vector is of one that does not."""
ADDRESS = "2001:db8:1111:2222:3333:4444:5555"
CANDIDATES = "".join(
    f"a=candidate:{2_999_745_000 + number} 1 udp {2_122_260_000 + number} {ADDRESS}:{number:x} 54400 typ srflx "
    f"raddr {ADDRESS}:6666 rport 54401 generation 0 network-id {number} network-cost 10\r\n"
    for number in range(16)
)
"""What has been gathered by the time of a later offer: four networks, two families, UDP and TCP."""


def largest(audio: int, video: int) -> str:
    """What Chromium offers with so many receiving sections and every codec that pages name to the media server."""
    head, *sections = offers.browser("chromium-twelve").replace("\n", "\r\n").split("\r\nm=")
    own_audio, own_video, hear, see = (
        "m=" + text.removesuffix("\r\n") + "\r\n" for text in (sections[0], sections[1], sections[2], sections[3])
    )
    own_video, see = (text.replace(" 116 117 ", " 116 117 118 119 ") + HIGH for text in (own_video, see))
    texts = [own_audio + CANDIDATES, own_video, *[hear] * audio, *[see] * video]
    numbered = [re.sub("a=mid:[0-9]+", f"a=mid:{mid}", text) for mid, text in enumerate(texts)]
    head = re.sub("a=group:BUNDLE .*\r\n", f"a=group:BUNDLE {' '.join(map(str, range(len(texts))))}\r\n", head)
    return f"{head}\r\n" + "".join(numbered)


def message(audio: int, video: int) -> str:
    """The same, as it is sent."""
    description = {"type": "offer", "sdp": largest(audio, video)}
    efficient = ["H264", "VP9", "AV1"]
    return json.dumps(
        {"type": "relayOffer", "connection": "0" * 36, "description": description, "efficient": efficient}
    )


class LavishSfu(FakeSfu):
    """Says of itself as much as the real one can."""

    def local(self, ufrag="ours"):
        dtls = DtlsParameters((Fingerprint("sha-256", offers.FINGERPRINT),), "server")
        addresses = ["2001:db8:1111:2222:3333:4444:5555:6666", "192.168.100.200"] * 4
        endpoints = tuple(Endpoint(ip, 10_000, kind) for kind in ("udp", "tcp") for ip in addresses)
        return LocalParameters(IceParameters("u" * 8, "p" * 32), dtls, endpoints)

    def subscribe(self, transport, track, source, now):
        super().subscribe(transport, track, source, now)
        numbers = 4_000_000_000 + next(self.ssrcs), 4_000_000_000 + next(self.ssrcs)
        return SendParameters(track.mid, *numbers, track.codecs, "c" * 16, "")


@pytest.mark.parametrize("sound", range(0, MAX_DEVICE_SOURCES + 1, 2))
def test_twelve_people_and_all_devices_fit_into_a_message(sound):
    sfu = LavishSfu()
    room = RelayedRoom(new_id(), sfu)
    people = [new_id() for _ in range(PEOPLE)]
    for person in people:
        room.enter(person, 0.0)
    kinds = ["audio"] * sound + ["video"] * (MAX_DEVICE_SOURCES - sound)
    for at in range(0, MAX_DEVICE_SOURCES, MAX_SENDING):
        sections = [offers.section(kind, "sendonly") for kind in kinds[at : at + MAX_SENDING]]
        room.publish_device(people[1], "patient", offers.offer(*sections), 1.0)
    for person in people:
        text = message(*room.sections(person))
        said = decode(text)  # ProtocolError above the limit
        assert isinstance(said, RelayOffer)
        assert len(text) <= MAX_MESSAGE_BYTES
        answer = room.offer(person, "patient", said, 2.0)
        assert len(encode(answer)) <= MAX_MESSAGE_BYTES
    answer = room.offer(people[0], "patient", decode(message(*room.sections(people[0]))), 3.0)
    assert len(answer.sections) == 2 * (PEOPLE - 1) + MAX_DEVICE_SOURCES <= MAX_SECTIONS - 2
    assert len(encode(answer)) <= MAX_MESSAGE_BYTES


def test_another_picture_would_not():
    """Otherwise the limit could be higher."""
    assert len(message(PEOPLE - 1, PEOPLE - 1 + MAX_DEVICE_SOURCES + 1)) > MAX_MESSAGE_BYTES
