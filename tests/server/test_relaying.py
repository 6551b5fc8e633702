"""One room's use of the media server: who connects, what they carry, in which codec, and who has to offer again."""

from itertools import count

import pytest

from server.errors import ProtocolError, RefusalError
from server.media import events
from server.media.parameters import (
    DtlsParameters,
    Endpoint,
    Fingerprint,
    IceParameters,
    LocalParameters,
    SendParameters,
)
from server.signalling.media_negotiation import MAX_SECTIONS
from server.signalling.messages import RelayOffer, SessionDescription, Wish, Wishes
from server.signalling.relaying import (
    MAX_DEVICE_SOURCES,
    MAX_DEVICES,
    Connected,
    DevicesChanged,
    EncodingsWanted,
    Failed,
    Interrupted,
    NeedsOffer,
    RelayedRoom,
    SpeakersChanged,
    room_of,
)
from tests import offers
from tests.offers import camera_and, offer, section


class FakeSfu:
    """Remembers what it is told."""

    def __init__(self):
        self.most = 1000  # streams sent
        self.transports = {}
        self.published = {}
        self.subscribed = {}
        self.preferred = {}
        self.preferences = 0
        self.restarts = count(1)
        self.ssrcs = count(1000)

    def local(self, ufrag="ours"):
        dtls = DtlsParameters((Fingerprint("sha-256", offers.FINGERPRINT),), "server")
        return LocalParameters(IceParameters(ufrag, "p" * 24), dtls, (Endpoint("192.0.2.1", 10_000),))

    def open_transport(self, id, room, participant, ice, dtls, extensions, now):
        assert id not in self.transports
        assert len(f"{id}:{'m' * 16}") <= 64
        self.transports[id] = participant
        return self.local()

    def restart_ice(self, id, ice, now):
        assert id in self.transports
        return self.local(f"again{next(self.restarts)}")

    def close_transport(self, id, now):
        self.transports.pop(id, None)
        for table in (self.published, self.subscribed, self.preferred):
            for key in [key for key in table if key[0] == id]:
                del table[key]

    def publish(self, transport, track, now):
        assert transport in self.transports
        assert track.codecs
        self.published[transport, track.mid] = track
        return f"{transport}:{track.mid}"

    def unpublish(self, transport, mid, now):
        self.published.pop((transport, mid), None)

    def subscribe(self, transport, track, source, now):
        assert transport in self.transports
        if (transport, track.mid) not in self.subscribed and len(self.subscribed) >= self.most:
            raise RefusalError("room_full")
        self.subscribed[transport, track.mid] = (source, track.codecs[0].name)
        return SendParameters(track.mid, next(self.ssrcs), next(self.ssrcs), track.codecs, "cname", "")

    def unsubscribe(self, transport, mid, now):
        self.subscribed.pop((transport, mid), None)
        self.preferred.pop((transport, mid), None)

    def prefer(self, transport, mid, rid, max_temporal=7, now=0.0):
        self.preferred[transport, mid] = rid
        self.preferences += 1


@pytest.fixture
def sfu():
    return FakeSfu()


@pytest.fixture
def room(sfu):
    room = RelayedRoom("room", sfu)
    for person in ("ada", "ben"):
        room.enter(person, 0.0)
    return room


def told(room):
    found = []
    while (event := room.next_event()) is not None:
        found.append(event)
    return found


def connect(room, person, text=None, *, name="", role="patient", efficient=(), now=1.0):
    description = SessionDescription(type="offer", sdp=text or camera_and(1))
    message = RelayOffer(connection=name or f"{person}-1", description=description, efficient=list(efficient))
    return room.offer(person, role, message, now)


def carries(answer):
    return {section.mid: (section.participant, section.kind) for section in answer.sections}


class TestTwo:
    def test_the_first_publishes_and_the_second_makes_them_offer_again(self, room, sfu):
        first = connect(room, "ada")
        assert first.sections == [] and told(room) == []
        second = connect(room, "ben")
        assert carries(second) == {"2": ("ada", "audio"), "3": ("ada", "video")}
        assert told(room) == [NeedsOffer("ada", 1, 1)]
        again = connect(room, "ada")
        assert carries(again) == {"2": ("ben", "audio"), "3": ("ben", "video")}
        assert told(room) == []
        assert sfu.transports == {"room.1": "ada", "room.2": "ben"}
        assert sfu.subscribed["room.1", "3"] == ("room.2:1", "VP8")
        assert [e.rid for e in sfu.published["room.1", "1"].encodings] == ["q", "h", "f"]

    def test_the_answer(self, room):
        connect(room, "ada")
        text = connect(room, "ben").description.sdp
        _, audio, video, hear, see = text.split("\r\nm=")
        assert "a=recvonly" in audio and "a=recvonly" in video and "a=simulcast:recv q;h;f" in video
        assert "a=sendonly" in hear and "a=msid:ada room.1.1" in see

    def test_a_section_for_nobody_is_inactive(self, room):
        text = connect(room, "ada").description.sdp
        assert text.count("a=inactive") == 2 and " 0 UDP" not in text

    def test_the_version_rises_with_each_answer(self, room):
        versions = [connect(room, "ada").description.sdp.split("\r\n")[1].split(" ")[2] for _ in range(3)]
        assert versions == ["1", "2", "3"]

    def test_the_start_bitrate_is_hinted(self, room):
        room.start_bps = 500_000
        answer = connect(room, "ada")
        assert answer.start_bps == 500_000
        assert "x-google-start-bitrate=500" in answer.description.sdp

    def test_real_browsers(self, room, sfu):
        connect(room, "ada", offers.browser("chromium"))
        answer = connect(room, "ben", offers.browser("firefox"))
        assert carries(answer) == {"2": ("ada", "audio"), "3": ("ada", "video")}
        assert sfu.subscribed["room.2", "2"][1] == "opus"

    def test_wishes_go_to_the_pictures(self, room, sfu):
        room.enter("cleo", 0.0)
        connect(room, "ada")
        connect(room, "ben")
        wishes = [Wish(mid="3", rid="q"), Wish(mid="2", rid="q"), Wish(mid="9", rid="q")]
        room.wish("ben", Wishes(wishes=wishes), 1.0)
        assert sfu.preferred == {("room.2", "3"): "q"}
        room.wish("ben", Wishes(wishes=[Wish(mid="3")]), 1.0)
        assert sfu.preferred == {("room.2", "3"): None}
        room.wish("nobody", Wishes(wishes=[Wish(mid="3", rid="q")]), 1.0)

    def test_wishes_that_change_nothing_cost_nothing(self, room, sfu):
        room.enter("cleo", 0.0)
        connect(room, "ada")
        connect(room, "ben")
        room.wish("ben", Wishes(wishes=[Wish(mid="3", rid="q")] * 63 + [Wish(mid="3", rid="h")]), 1.0)
        assert sfu.preferred == {("room.2", "3"): "h"} and sfu.preferences == 1
        room.wish("ben", Wishes(wishes=[Wish(mid="3", rid="h")]), 1.0)
        assert sfu.preferences == 1
        room.wish("ben", Wishes(wishes=[Wish(mid="3")]), 1.0)
        room.wish("ben", Wishes(wishes=[Wish(mid="3")]), 1.0)
        assert sfu.preferred == {("room.2", "3"): None} and sfu.preferences == 2

    def test_a_wish_ends_with_the_source(self, room, sfu):
        connect(room, "ada")
        connect(room, "ben")
        wishes = Wishes(wishes=[Wish(mid="3", rid="f")])
        room.wish("ben", wishes, 1.0)
        connect(room, "ada", name="ada-2")
        assert sfu.preferred == {}
        connect(room, "ben")
        room.wish("ben", wishes, 2.0)
        assert sfu.preferred == {("room.2", "3"): "f"}

    def test_of_two_people_each_gets_the_whole_picture(self, room, sfu):
        connect(room, "ada")
        connect(room, "ben")
        room.wish("ben", Wishes(wishes=[Wish(mid="3", rid="q")]), 1.0)
        assert sfu.preferred == {("room.2", "3"): "f"}
        room.enter("cleo", 2.0)
        assert sfu.preferred == {("room.2", "3"): "q"}
        room.leave("cleo", 3.0)
        assert sfu.preferred == {("room.2", "3"): "f"}
        room.wish("ben", Wishes(wishes=[Wish(mid="3")]), 4.0)
        assert sfu.preferred == {("room.2", "3"): None}


class TestLimits:
    def test_a_browser_publishes_one_of_each_kind(self, room, sfu):
        many = offer(*[section("audio", "sendonly")] * 3, *[section("video", "sendonly")] * 44)
        answer = connect(room, "ada", many)
        assert {*sfu.published} == {("room.1", "0"), ("room.1", "3")}
        assert answer.description.sdp.count("a=recvonly") == 2 and answer.description.sdp.count("a=inactive") == 45
        assert room.sections("ben") == (1, 1)
        assert len(connect(room, "ben").sections) == 2

    def test_the_one_that_is_published_stays_when_another_comes_before_it(self, room, sfu):
        connect(room, "ada", offer(section("video", "inactive"), section("video", "sendonly")))
        connect(room, "ada", offer(section("video", "sendonly"), section("video", "sendonly")))
        assert [*sfu.published] == [("room.1", "1")]

    def test_a_section_that_becomes_one_of_another_kind_begins_anew(self, room, sfu):
        """No browser does that; who does must not have sound sent as a picture."""
        connect(room, "ada", offer(section("audio", "sendonly"), section("video", "recvonly")))
        connect(room, "ben")
        connect(room, "ada", offer(section("audio", "sendonly"), section("video", "recvonly")))
        assert sfu.subscribed == {("room.1", "1"): ("room.2:1", "VP8"), ("room.2", "2"): ("room.1:0", "opus")}
        answer = connect(room, "ada", offer(section("video", "sendonly"), section("audio", "recvonly")))
        assert carries(answer) == {"1": ("ben", "audio")}
        assert sfu.subscribed == {("room.1", "1"): ("room.2:0", "opus")}
        assert carries(connect(room, "ben")) == {"3": ("ada", "video")}


class TestInvitations:
    def test_once_until_they_offer(self, room):
        room.invite("ada", 0.0)
        room.invite("ada", 0.0)
        assert told(room) == [NeedsOffer("ada", 1, 1)]
        connect(room, "ada")
        room.invite("ada", 0.0)
        assert told(room) == []

    def test_a_fresh_one_closes_the_old_one(self, room, sfu):
        connect(room, "ada")
        room.invite("ada", 0.0, fresh=True)
        assert told(room) == [NeedsOffer("ada", 1, 1, fresh=True)] and not sfu.transports

    def test_sections_are_counted_from_people_and_their_devices(self, room):
        room.enter("eve", 0.0)
        assert room.sections("ada") == (2, 2)
        connect(room, "ben")
        room.publish_device("ben", "patient", offer(section("video", "sendonly")), 1.0)
        assert room.sections("ada") == (2, 3)
        assert room.sections("ben") == (2, 2)

    def test_too_few_sections_are_asked_for_again_but_not_forever(self, room):
        room.enter("eve", 0.0)
        connect(room, "ada")
        connect(room, "ben")
        told(room)
        connect(room, "eve", camera_and(1))
        assert NeedsOffer("eve", 2, 2) in told(room)
        connect(room, "eve", camera_and(1))
        assert NeedsOffer("eve", 2, 2) not in told(room)
        assert len(connect(room, "eve", camera_and(2)).sections) == 4


class TestPace:
    """Who makes others offer cannot make them use up what they may send."""

    def test_one_request_at_a_time(self, room):
        connect(room, "ada")
        for number in range(20):
            connect(room, "ben", name=f"ben-{number}", now=2.0 + number)
        assert told(room) == [NeedsOffer("ada", 1, 1)]
        connect(room, "ada", now=30.0)
        assert told(room) == []

    def test_what_came_meanwhile_is_asked_about_after_the_answer(self, room):
        room.enter("eve", 0.0)
        connect(room, "ada", camera_and(1), now=1.0)
        connect(room, "ben", now=2.0)
        connect(room, "eve", camera_and(2), now=2.1)
        assert [event.participant for event in told(room)] == ["ada", "ben"]
        connect(room, "ada", camera_and(1), now=3.0)
        assert told(room) == [NeedsOffer("ada", 2, 2)]

    def test_not_twice_within_half_a_second(self, room):
        connect(room, "ada")
        for number in range(50):
            connect(room, "ben", name=f"ben-{number}", now=2.0 + number / 50)
            room.handle_timer(2.0 + number / 50)
            connect(room, "ada", now=2.01 + number / 50)
        asked = [event for event in told(room) if event.participant == "ada"]
        assert len(asked) == 2

    def test_a_request_that_was_too_early_is_made_later(self, room):
        connect(room, "ada")
        connect(room, "ben", now=2.0)
        connect(room, "ada", now=2.1)
        room.leave("ben", 2.2)
        assert told(room) == [NeedsOffer("ada", 1, 1)] and room.get_timer() == 2.5
        room.handle_timer(2.4)
        assert told(room) == []
        room.handle_timer(2.5)
        assert told(room) == [NeedsOffer("ada", 0, 0)] and room.get_timer() is None

    def test_a_request_on_a_connection_that_died_does_not_keep_it_from_a_fresh_one(self, room):
        connect(room, "ada")
        connect(room, "ben")
        told(room)
        room.receive_media_event(events.TransportFailed("room.1", events.TransportFailure.TIMEOUT), 2.0)
        assert NeedsOffer("ada", 1, 1, fresh=True) in told(room)

    def test_an_offer_that_is_none_answers_the_request_too(self, room):
        connect(room, "ada")
        connect(room, "ben", now=2.0)
        told(room)
        with pytest.raises(ProtocolError):
            connect(room, "ada", "nonsense", now=3.0)
        room.enter("eve", 3.0)
        connect(room, "eve", now=4.0)
        assert NeedsOffer("ada", 2, 2) in told(room)


class TestPeople:
    def test_who_leaves_is_closed_at_once_and_their_sections_are_used_again(self, room, sfu):
        connect(room, "ada")
        connect(room, "ben")
        connect(room, "ada")
        room.leave("ben", 2.0)
        assert sfu.transports == {"room.1": "ada"}
        assert ("room.1", "3") not in sfu.subscribed
        told(room)
        connect(room, "ada", now=2.5)
        room.enter("eve", 3.0)
        connect(room, "eve", now=3.0)
        assert told(room) == [NeedsOffer("ada", 1, 1)]
        assert carries(connect(room, "ada")) == {"2": ("eve", "audio"), "3": ("eve", "video")}

    def test_a_new_connection_closes_the_old_one(self, room, sfu):
        connect(room, "ada")
        connect(room, "ben")
        connect(room, "ada", name="ada-2")
        assert sfu.transports == {"room.2": "ben", "room.3": "ada"}
        assert ("room.2", "3") not in sfu.subscribed
        assert NeedsOffer("ben", 1, 1) in told(room)

    def test_another_certificate_is_another_connection(self, room, sfu):
        connect(room, "ada")
        connect(room, "ada", camera_and(1, fingerprint=":".join(["AA"] * 32)))
        assert sfu.transports == {"room.2": "ada"}

    def test_new_credentials_restart_ice(self, room, sfu):
        assert "a=ice-ufrag:ours" in connect(room, "ada").description.sdp
        assert "a=ice-ufrag:ours" in connect(room, "ada").description.sdp
        assert "a=ice-ufrag:again1" in connect(room, "ada", camera_and(1, ufrag="other")).description.sdp
        assert sfu.transports == {"room.1": "ada"}

    def test_a_camera_that_stops_is_withdrawn(self, room, sfu):
        connect(room, "ada")
        connect(room, "ben")
        connect(room, "ada", camera_and(1).replace("a=sendonly", "a=inactive"))
        assert [key for key in sfu.published if key[0] == "room.1"] == []
        assert ("room.2", "3") not in sfu.subscribed
        assert NeedsOffer("ben", 1, 1) in told(room)
        assert connect(room, "ben").sections == []

    def test_only_who_is_in_the_conversation(self, room, sfu):
        with pytest.raises(RefusalError, match="not_permitted"):
            connect(room, "eve")
        room.leave("ada", 1.0)
        with pytest.raises(RefusalError, match="not_permitted"):
            connect(room, "ada")
        assert not sfu.transports

    def test_an_observer_only_watches(self, room, sfu):
        with pytest.raises(RefusalError, match="not_permitted"):
            connect(room, "ada", role="observer")
        assert not sfu.transports
        connect(room, "ben")
        watching = offer(section("audio", "recvonly"), section("video", "recvonly"))
        assert len(connect(room, "ada", watching, role="observer").sections) == 2

    def test_ugly_offers_change_nothing(self, room, sfu):
        connect(room, "ada")
        for text in ("", "v=0\r\n", camera_and(1).replace("a=setup:actpass", "a=setup:x")):
            with pytest.raises(ProtocolError):
                connect(room, "ada", text or "x", name="ada-2")
        answer = RelayOffer(connection="a", description=SessionDescription(type="answer", sdp=camera_and(1)))
        with pytest.raises(ProtocolError):
            room.offer("ada", "patient", answer, 1.0)
        assert sfu.transports == {"room.1": "ada"}

    def test_the_end(self, room, sfu):
        connect(room, "ada")
        connect(room, "ben")
        room.close(9.0)
        assert not sfu.transports


class TestCodec:
    def test_hardware_h264_where_all_decode_it(self, room, sfu):
        connect(room, "ada", efficient=["H264"])
        assert sfu.published["room.1", "1"].codecs[0].name == "H264"

    def test_a_newcomer_who_cannot_decode_it_changes_it_before_their_tiles_show(self, room, sfu):
        connect(room, "ada", efficient=["H264"])
        connect(room, "ben")
        connect(room, "ada", efficient=["H264"])
        room.receive_media_event(events.TrackStarted("room.1", "room.1:1"), 2.0)
        room.enter("eve", 3.0)
        told(room)
        text = connect(room, "eve", camera_and(2, "VP8"), now=3.0).description.sdp
        assert "H264" not in text
        assert {event.participant for event in told(room)} == {"ada", "ben"}
        answer = connect(room, "ada", camera_and(2), efficient=["H264"])
        assert "H264" not in answer.description.sdp
        assert sfu.subscribed["room.3", "3"][1] == "VP8"
        assert sfu.published["room.1", "1"].codecs[0].name == "VP8"

    def test_what_works_is_not_changed_while_it_is_seen(self, room, sfu):
        connect(room, "ada")
        room.receive_media_event(events.TrackStarted("room.1", "room.1:1"), 2.0)
        connect(room, "ben", efficient=["H264"])
        assert sfu.published["room.2", "1"].codecs[0].name == "VP8"

    def test_who_has_nothing_in_common_goes_without_pictures(self, room, sfu):
        connect(room, "ada", camera_and(1, "VP8"))
        answer = connect(room, "ben", camera_and(1, "H264"))
        assert carries(answer) == {"2": ("ada", "audio")}
        assert ("room.2", "1") not in sfu.published
        assert sfu.published["room.1", "1"].codecs[0].name == "VP8"

    def test_red_is_unwrapped_towards_who_did_not_offer_it(self, room, sfu):
        red_first = camera_and(1, red=True).replace("SAVPF 111 63", "SAVPF 63 111")
        connect(room, "ada", red_first)
        assert sfu.published["room.1", "0"].codecs[0].name == "red"
        connect(room, "ben")
        assert sfu.subscribed["room.2", "2"][1] == "opus"
        room.enter("eve", 2.0)
        connect(room, "eve", camera_and(2, red=True))
        assert sfu.subscribed["room.3", "2"][1] == "red"


class TestFull:
    """The media server has no place for another stream."""

    def test_a_newcomer_is_refused_and_leaves_nothing(self, room, sfu):
        connect(room, "ada")
        sfu.most = 1
        with pytest.raises(RefusalError, match="room_full"):
            connect(room, "ben")
        assert list(sfu.transports.values()) == ["ada"]
        assert not sfu.subscribed and not room.published("ben")
        sfu.most = 2
        assert len(connect(room, "ben", name="ben-2").sections) == 2

    def test_who_is_connected_keeps_what_they_have(self, room, sfu):
        for person in ("ada", "ben", "ada"):
            connect(room, person)
        room.enter("eve", 2.0)
        connect(room, "eve", camera_and(0))
        before, sfu.most = dict(sfu.subscribed), len(sfu.subscribed) + 1
        with pytest.raises(RefusalError, match="room_full"):
            connect(room, "ada", camera_and(2))
        assert before.items() <= sfu.subscribed.items()
        assert room.published("ada") == {"audio", "video"}
        sfu.most += 1
        assert carries(connect(room, "ada", camera_and(2))).keys() == {"2", "3", "4", "5"}
        assert before.items() <= sfu.subscribed.items()

    def test_a_device_that_finds_no_place_does_not_refuse_whoever_came(self, room, sfu):
        viewer = room.subscribe_device("ada", "", TestDevices.VIEWER, 1.0)
        sfu.most = 0
        assert connect(room, "ben").sections == []
        assert not sfu.subscribed
        sfu.most = 2
        connect(room, "ben")
        assert sfu.subscribed.keys() == {(viewer.transport, "0"), (viewer.transport, "1")}

    def test_a_refused_device_leaves_nothing(self, room, sfu):
        connect(room, "ben")
        sfu.most = 0
        with pytest.raises(RefusalError, match="room_full"):
            room.subscribe_device("ada", "", TestDevices.VIEWER, 1.0)
        assert room.devices("ada") == 0
        assert list(sfu.transports.values()) == ["ben"]


class TestDevices:
    CAMERA = offer(section("video", "sendonly", more="a=ssrc:7 cname:x\n"))
    VIEWER = offer(section("audio", "recvonly"), section("video", "recvonly"))

    def test_it_appears_as_its_participant(self, room, sfu):
        connect(room, "ada")
        device = room.publish_device("ben", "patient", self.CAMERA, 1.0)
        assert sfu.transports[device.transport] == "ben"
        assert "a=recvonly" in device.sdp
        assert told(room) == [DevicesChanged("ben", 1, 1), NeedsOffer("ada", 1, 1)]
        assert carries(connect(room, "ada")) == {"3": ("ben", "video")}

    def test_beside_the_browser(self, room):
        connect(room, "ada")
        connect(room, "ben")
        room.publish_device("ben", "patient", self.CAMERA, 1.0)
        answer = connect(room, "ada", camera_and(2))
        assert [(s.participant, s.kind) for s in answer.sections].count(("ben", "video")) == 2
        assert len({s.source for s in answer.sections}) == 3
        assert [s.kind for s in answer.sections if s.device] == ["video"]

    def test_it_stays_beside_when_the_page_comes_later(self, room):
        """Which is which does not depend on who came first: pages show the browser's own large."""
        connect(room, "ada")
        room.publish_device("ben", "patient", self.CAMERA, 1.0)
        connect(room, "ben")
        answer = connect(room, "ada", camera_and(2))
        assert {s.source: s.device for s in answer.sections} == {"room.2:0": True, "room.3:0": False, "room.3:1": False}

    def test_its_end_is_told(self, room, sfu):
        connect(room, "ada")
        device = room.publish_device("ben", "patient", self.CAMERA, 1.0)
        connect(room, "ada")
        told(room)
        room.close_device(device.transport, 2.0)
        assert not room.has_device(device.transport)
        assert told(room) == [DevicesChanged("ben", 0, 0), NeedsOffer("ada", 1, 1)]
        assert connect(room, "ada").sections == []
        room.close_device(device.transport, 2.0)

    def test_a_viewer_sees_who_comes_later(self, room, sfu):
        viewer = room.subscribe_device("ada", "", self.VIEWER, 1.0)
        assert viewer.sdp.count("a=sendonly") == 2
        connect(room, "ben")
        assert sfu.subscribed[viewer.transport, "1"] == ("room.2:1", "VP8")
        room.leave("ben", 2.0)
        assert (viewer.transport, "1") not in sfu.subscribed
        assert told(room) == [DevicesChanged("ada", 1, 1)]

    def test_a_viewer_of_one(self, room, sfu):
        room.enter("eve", 0.0)
        connect(room, "ben")
        connect(room, "eve")
        viewer = room.subscribe_device("ada", "eve", self.VIEWER, 1.0)
        assert sfu.subscribed[viewer.transport, "1"][0] == "room.2:1"
        with pytest.raises(RefusalError, match="unknown_participant"):
            room.subscribe_device("ada", "nobody", self.VIEWER, 1.0)

    def test_nobody_sees_themselves(self, room, sfu):
        connect(room, "ada")
        viewer = room.subscribe_device("ada", "", self.VIEWER, 1.0)
        assert (viewer.transport, "1") not in sfu.subscribed

    def test_what_it_was_told_stays(self, room):
        room.publish_device("ben", "patient", offer(section("video", "sendonly", "H264")), 1.0)
        assert "H264" in connect(room, "ada", efficient=["VP9"]).description.sdp
        with pytest.raises(RefusalError, match="no_common_codec"):
            room.publish_device("ben", "patient", offer(section("video", "sendonly", "VP8")), 1.0)

    def test_rights_and_limits(self, room, sfu):
        with pytest.raises(RefusalError, match="not_permitted"):
            room.publish_device("ben", "observer", self.CAMERA, 1.0)
        with pytest.raises(RefusalError, match="not_permitted"):
            room.publish_device("eve", "patient", self.CAMERA, 1.0)
        with pytest.raises(RefusalError, match="wrong_way"):
            room.publish_device("ben", "patient", self.VIEWER, 1.0)
        for _ in range(MAX_DEVICES):
            room.publish_device("ben", "patient", self.CAMERA, 1.0)
        with pytest.raises(RefusalError, match="too_many_devices"):
            room.publish_device("ben", "patient", self.CAMERA, 1.0)
        room.leave("ben", 2.0)
        assert not sfu.transports

    def test_two_sections_each(self, room, sfu):
        several = offer(section("video", "sendonly"), section("audio", "sendonly"), section("video", "sendonly"))
        device = room.publish_device("ben", "patient", several, 1.0)
        assert [mid for transport, mid in sfu.published if transport == device.transport] == ["0", "1"]
        assert [line for line in device.sdp.split("\r\n") if line in ("a=recvonly", "a=inactive")] == [
            "a=recvonly", "a=recvonly", "a=inactive",
        ]  # fmt: skip

    def test_the_sections_of_everybody_always_fit(self, sfu):
        """Twelve people, and as many devices as there may be: no offer has more sections than one may have."""
        room = RelayedRoom("room", sfu)
        people = [f"person{number}" for number in range(12)]
        for person in people:
            room.enter(person, 0.0)
        two = offer(section("video", "sendonly"), section("video", "sendonly"))
        for person in people[: MAX_DEVICE_SOURCES // 2]:
            room.publish_device(person, "patient", two, 1.0)
        with pytest.raises(RefusalError, match="room_full"):
            room.publish_device(people[7], "patient", self.CAMERA, 1.0)
        room.subscribe_device(people[7], "", self.VIEWER, 1.0)
        for person in people:
            connect(room, person)
        assert max(2 + sum(room.sections(person)) for person in people) <= MAX_SECTIONS
        audio, video = room.sections("person11")
        more = [section("audio", "recvonly")] * audio + [section("video", "recvonly")] * video
        own = [section("audio", "sendonly"), section("video", "sendonly")]
        assert len(connect(room, "person11", offer(*own, *more)).sections) == 11 * 2 + MAX_DEVICE_SOURCES

    PCMU = section("audio", "{way}").replace("opus/48000/2", "PCMU/8000")

    @pytest.mark.parametrize("way", ["sendonly", "recvonly"])
    def test_one_without_a_codec_of_ours(self, room, sfu, way):
        text = offer(self.PCMU.replace("{way}", way))
        with pytest.raises(RefusalError, match="no_common_codec"):
            if way == "sendonly":
                room.publish_device("ben", "patient", text, 1.0)
            else:
                room.subscribe_device("ben", "", text, 1.0)
        assert room.devices("ben") == 0 and not sfu.transports

    def test_a_restart_names_the_section_with_our_candidates(self, room):
        """A refused section is none that an offerer keeps."""
        text = offer(self.PCMU.replace("{way}", "sendonly"), section("video", "sendonly"))
        device = room.publish_device("ben", "patient", text, 1.0)
        fragment = room.restart_device(device.transport, IceParameters("u", "p"), 2.0)
        assert (fragment.kind, fragment.mid) == ("video", "1")

    def test_ice_restart(self, room):
        device = room.publish_device("ben", "patient", self.CAMERA, 1.0)
        assert room.restart_device(device.transport, IceParameters("u", "p"), 2.0).local.ice.ufrag == "again1"
        with pytest.raises(RefusalError, match="not_found"):
            room.restart_device("room.9", IceParameters("u", "p"), 2.0)


class TestMediaEvents:
    def test_a_transport_names_its_room(self):
        assert room_of(events.TransportConnected("room.1")) == "room"
        assert room_of(events.SpeakersChanged("room", ())) == "room"

    def test_up_and_down(self, room):
        connect(room, "ada")
        for event in (events.TransportConnected, events.TransportInterrupted, events.TransportResumed):
            room.receive_media_event(event("room.1"), 2.0)
        assert told(room) == [Connected("ada"), Interrupted("ada"), Connected("ada")]
        assert room.connected("ada") and not room.connected("ben")

    @pytest.mark.parametrize("reason", list(events.TransportFailure))
    def test_failure(self, room, sfu, reason):
        connect(room, "ada")
        room.receive_media_event(events.TransportFailed("room.1", reason), 2.0)
        again = [] if reason in ("fingerprint", "closed") else [NeedsOffer("ada", 1, 1, fresh=True)]
        assert told(room) == [Failed("ada", reason), *again]
        assert not sfu.transports
        room.receive_media_event(events.TransportFailed("room.1", reason), 2.0)
        assert told(room) == []

    def test_a_devices_failure_is_only_its_end(self, room, sfu):
        device = room.publish_device("ben", "patient", TestDevices.CAMERA, 1.0)
        room.receive_media_event(events.TransportConnected(device.transport), 2.0)
        room.receive_media_event(events.TransportFailed(device.transport, events.TransportFailure.TIMEOUT), 2.0)
        assert told(room) == [DevicesChanged("ben", 1, 1), DevicesChanged("ben", 0, 0)] and not sfu.transports

    def test_encodings_and_speakers(self, room):
        connect(room, "ada")
        room.receive_media_event(events.EncodingsWanted("room.1", "1", ("q", "f")), 2.0)
        room.receive_media_event(events.EncodingsWanted("room.1", "1", ("",)), 2.0)
        room.receive_media_event(events.EncodingsWanted("room.1", "0", ("",)), 2.0)
        room.receive_media_event(events.EncodingsWanted("room.1", "1", ()), 2.0)
        room.receive_media_event(events.SpeakersChanged("room", ("ada",)), 2.0)
        assert told(room) == [
            EncodingsWanted("ada", ("q", "f")),
            EncodingsWanted("ada", ("f",)),
            EncodingsWanted("ada", ()),
            SpeakersChanged(("ada",)),
        ]
