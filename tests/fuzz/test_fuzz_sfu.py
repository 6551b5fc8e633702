"""A whole Sfu, and what authentic peers and signalling can do to it in any order. Allowed: refusals, nothing else.

Packets come in bursts whose events wait in the relay while tracks come and go, as on a busy server. Nothing is raised,
no media crosses rooms, and when all have left nothing of them is left.
"""

import os
from collections.abc import Iterable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.errors import RefusalError
from server.media.events import MediaEvent, SpeakersChanged
from server.media.parameters import TrackParameters
from server.media.rtp.rtcp import (
    FullIntraRequest,
    Goodbye,
    Nack,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    serialize_compound,
)
from tests.relayed import Rtp, vp8
from tests.sfupeers import AUDIO_LEVEL, MID, RID, RRID, TRANSPORT_CC, Member, World, audio, video

NAMES, ROOMS = ("ada", "ben", "cat"), ("one", "two")
names, rooms = st.sampled_from(NAMES), st.sampled_from(ROOMS)
mids, ssrcs = st.sampled_from(("a", "v", "w")), st.sampled_from(range(0x50, 0x53))
rids = st.sampled_from(("", "", "", "q"))
tracks = st.one_of(
    st.builds(audio, mids, ssrc=st.none() | ssrcs),
    st.builds(video, mids, ssrc=st.none() | ssrcs),
    st.builds(video, mids, rids=st.just(("q", "f"))),
)
rtps = st.tuples(
    ssrcs,
    st.sampled_from(("", "", "a", "v", "w")),
    rids,
    st.sampled_from((96, 96, 111, 111, 97)),
    st.booleans(),
    st.integers(1, 40),
)
blocks = st.builds(ReportBlock, ssrcs, st.just(1), st.just(1), st.just(1), st.just(1), st.just(1), st.just(1))
rtcps = st.one_of(
    st.builds(SenderReport, ssrcs, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.just(1), st.just(1)),
    st.builds(lambda block: ReceiverReport(1, (block,)), blocks),
    st.builds(PictureLossIndication, st.just(1), ssrcs),
    st.builds(lambda ssrc, number: FullIntraRequest(1, 0, ((ssrc, number),)), ssrcs, st.integers(0, 3)),
    st.builds(lambda some: Goodbye(tuple(some)), st.lists(ssrcs, min_size=1, max_size=4)),
    st.builds(lambda ssrc: Nack(1, ssrc, (1001, 1003)), ssrcs),
)


class Conversations(RuleBasedStateMachine):
    """Three people in two rooms."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.errors: list[Exception] = []
        self.world.sfu.guard.tell = self.errors.append
        self.members: dict[str, tuple[str, Member]] = {}
        self.ghosts: list[tuple[str, Member]] = []

    def member(self, name: str) -> Member | None:
        return self.members[name][1] if name in self.members else None

    @initialize()
    def begin(self) -> None:
        """Two who talk, and one in another room: most of what can happen needs that."""
        for name, room in zip(NAMES, ("one", "one", "two"), strict=True):
            self.join(name, room)
            for track in (audio("a"), video("v")):
                self.publish(name, track)
        self.subscribe("ben", audio("a"), "ada", "a")
        self.subscribe("ben", video("v"), "ada", "v")

    # Signalling.

    @rule(name=names, room=rooms)
    def join(self, name: str, room: str) -> None:
        if name not in self.members:
            self.members[name] = (room, Member(self.world, name, room))

    @rule(name=names)
    def leave(self, name: str) -> None:
        if name in self.members:
            self.ghosts = [*self.ghosts[-2:], self.members.pop(name)]
            self.world.sfu.close_transport(name, self.world.now)

    @rule(name=names, track=tracks)
    def publish(self, name: str, track: TrackParameters) -> None:
        if name in self.members:
            try:
                self.world.sfu.publish(name, track, self.world.now)
            except RefusalError as refusal:
                assert refusal.code == "bad_sdp"

    @rule(name=names, mid=mids)
    def unpublish(self, name: str, mid: str) -> None:
        if name in self.members:
            self.world.sfu.unpublish(name, mid, self.world.now)

    @rule(name=names, track=tracks, other=names, mid=mids)
    def subscribe(self, name: str, track: TrackParameters, other: str, mid: str) -> None:
        if name in self.members:
            self.world.sfu.subscribe(name, track, f"{other}:{mid}", self.world.now)

    @rule(name=names, mid=mids)
    def unsubscribe(self, name: str, mid: str) -> None:
        if name in self.members:
            self.world.sfu.unsubscribe(name, mid, self.world.now)

    @rule(name=names, mid=mids, rid=st.none() | rids, temporal=st.integers(0, 7))
    def prefer(self, name: str, mid: str, rid: str | None, temporal: int) -> None:
        if name in self.members:
            self.world.sfu.prefer(name, mid, rid, temporal, self.world.now)

    # The network; nobody looks at what comes of it yet.

    def arrive(self, member: Member, datagrams: Iterable[bytes]) -> None:
        for address, data in self.world.relay.process([(member.address, data) for data in datagrams], self.world.now):
            self.world.sent[address].append(data)

    @rule(name=names, burst=st.lists(rtps, min_size=1, max_size=8))
    def send(self, name: str, burst: list[tuple[int, str, str, int, bool, int]]) -> None:
        if name in self.members:
            room, member = self.members[name]
            self.arrive(member, [packet(member, room, *each) for each in burst])

    @precondition(lambda self: self.ghosts)
    @rule(burst=st.lists(rtps, min_size=1, max_size=3), data=st.data())
    def haunt(self, burst: list[tuple[int, str, str, int, bool, int]], data: st.DataObject) -> None:
        """Who has been sent away goes on."""
        room, member = data.draw(st.sampled_from(self.ghosts))
        self.arrive(member, [packet(member, f"ghost of {room}", *each) for each in burst])

    @rule(name=names, packets=st.lists(rtcps, min_size=1, max_size=4), theirs=st.booleans())
    def report(self, name: str, packets: list, theirs: bool) -> None:
        """About streams of its own, or of ours towards it."""
        member = self.member(name)
        if member is not None:
            downs = [down.parameters.ssrc for down in self.world.sfu._peers[name].downs.values()]
            if theirs and downs:
                packets = [*packets, PictureLossIndication(1, downs[0]), Nack(1, downs[-1], (1001,))]
            self.arrive(member, [member._protect.protect_rtcp(serialize_compound(packets))])

    # The slow path.

    @rule()
    def look(self) -> None:
        self.world.deliver()

    @rule(seconds=st.sampled_from((0.0, 0.05, 0.3, 1.1, 4.0)))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def timer_first(self) -> None:
        """A timer comes before the events of the same moment."""
        timer = self.world.sfu.get_timer()
        if timer is not None:
            self.world.now = max(self.world.now, timer)
            self.world.sfu.handle_timer(self.world.now)

    # What always holds.

    @invariant()
    def nothing_was_raised(self) -> None:
        for error in self.errors:
            raise error

    @invariant()
    def nobody_receives_another_rooms_media(self) -> None:
        for room, member in self.members.values():
            for rtp in member.media():
                assert rtp.payload.endswith(room.encode()), rtp

    @invariant()
    def nobody_hears_of_another_rooms_people(self) -> None:
        for event in self.world.take(MediaEvent):
            if isinstance(event, SpeakersChanged):
                here = {name for name, (room, _) in self.members.items() if room == event.room}
                left = {member.participant for room, member in self.ghosts if room == event.room}
                assert set(event.participants) <= here | left

    @invariant()
    def the_tables_are_what_is_published_and_subscribed(self) -> None:
        views = self.world.relay.transports_view, self.world.relay.sources_view, self.world.relay.forwards_view
        peers = self.world.sfu._peers.values()
        encodings = {each.slot for peer in peers for up in peer.ups.values() for each in up.encodings}
        forwards = {down.forward for peer in peers for down in peer.downs.values()}
        slots = {peer.transport.slot for peer in peers}
        assert [set(view["used"].nonzero()[0].tolist()) for view in views] == [slots, encodings, forwards]
        assert set(self.world.sfu._clockwork.encodings) == encodings
        assert set(self.world.sfu._clockwork.forwards) == forwards

    def teardown(self) -> None:
        sfu = self.world.sfu
        sfu.close(self.world.now)
        self.world.deliver()
        self.the_tables_are_what_is_published_and_subscribed()
        self.nothing_was_raised()
        assert not (sfu._peers or sfu._rooms or sfu._by_slot or sfu._by_ufrag or sfu._busy)
        self.world.advance(2.0)
        assert sfu.get_timer() is None


def packet(member: Member, room: str, ssrc: int, mid: str, rid: str, payload_type: int, key: bool, step: int) -> bytes:
    """One authentic packet, whose payload ends in the room it is from."""
    elements = {TRANSPORT_CC: next(member.wide).to_bytes(2), AUDIO_LEVEL: b"\x85"}
    if mid:
        elements[MID] = mid.encode()
    if rid:
        elements[RRID if payload_type == 97 else RID] = rid.encode()
    for _ in range(step):
        seq = next(member.seqs[ssrc])
    payload = room.encode() if payload_type == 111 else vp8(seq & 0x7FFF, key=key, body=room.encode())
    if payload_type == 97:
        payload = (seq & 0x3FF).to_bytes(2) + payload
    return member._protect.protect(bytes(Rtp(ssrc, seq, payload, seq * 900, payload_type, True, elements)))


TestConversations = Conversations.TestCase
TestConversations.settings = settings(
    max_examples=max(int(os.environ.get("FUZZ_EXAMPLES", "1000")) // 5, 100),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
