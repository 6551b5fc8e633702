"""WHIP and WHEP over HTTP: who may, what is answered, and media through it with aiortc."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from server.signalling.relaying import MAX_DEVICE_SOURCES
from tests.live import Live, live_server
from tests.offers import offer, section
from tests.participant import Participant

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
CAMERA = offer(section("audio", "sendonly"), section("video", "sendonly"))
VIEWER = offer(section("audio", "recvonly"), section("video", "recvonly"))


class Clinic:
    """A room with a clinician's and a patient's link, and somebody who speaks HTTP."""

    def __init__(self, live: Live, http: aiohttp.ClientSession) -> None:
        self.live, self.http = live, http

    async def open(self, *, topology="auto"):
        self.room = await self.live.room(topology=topology)
        self.clinician = (await self.live.link(self.room, "clinician")).partition("#")[2]
        self.patient = (await self.live.link(self.room, "patient")).partition("#")[2]
        return self

    async def post(self, body=CAMERA, *, kind="whip", token="", room="", headers=SDP, query=""):
        authorization = {"Authorization": f"Bearer {token or self.clinician}"}
        url = f"/{kind}/{room or self.room.id}{query}"
        return await self.http.post(url, data=body.encode(), headers={**authorization, **headers})

    async def call(self, method, url, *, token="", headers=(), data=None):
        authorization = {"Authorization": f"Bearer {token or self.clinician}"}
        return await self.http.request(method, url, headers={**authorization, **dict(headers)}, data=data)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live():
    async with live_server(http={"max_joins_per_address_per_minute": 1000}) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def clinic(live):
    async with aiohttp.ClientSession(live.origin) as http:
        yield await Clinic(live, http).open()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


async def code(answer):
    assert answer.content_type == "application/problem+json", await answer.text()
    return answer.status, (await answer.json())["code"]


class TestPost:
    async def test_published(self, clinic):
        answer = await clinic.post()
        text = await answer.text()
        assert answer.status == 201 and answer.content_type == "application/sdp", text
        assert re.fullmatch(rf"/whip/{clinic.room.id}/[\w-]{{22}}", answer.headers["Location"])
        ufrag = found(r"a=ice-ufrag:(\S+)", text)
        assert answer.headers["ETag"] == f'"{ufrag}"'
        assert "a=recvonly" in text and "a=candidate" in text
        assert not [name for name in answer.headers if name.startswith("Access-Control")]

    async def test_watched(self, clinic):
        assert (await clinic.post()).status == 201
        other = clinic.clinician
        clinic.clinician = (await clinic.live.link(clinic.room, "clinician")).partition("#")[2]
        answer = await clinic.post(VIEWER, kind="whep")
        text = await answer.text()
        assert answer.status == 201 and answer.headers["Location"].startswith("/whep/")
        assert text.count("a=sendonly") == 2 and text.count("a=msid:") == 2
        assert other != clinic.clinician

    async def test_who_may(self, clinic):
        assert await code(await clinic.post(token="x" * 22)) == (401, "link_unknown")
        assert await code(await clinic.post(token=clinic.patient)) == (403, "not_admitted")
        bare = await clinic.http.post(f"/whip/{clinic.room.id}", data=CAMERA, headers=SDP)
        assert await code(bare) == (401, "link_unknown")
        assert bare.headers["WWW-Authenticate"].startswith("Bearer")

    async def test_other_rooms_and_none_answer_alike(self, clinic):
        other = await clinic.live.room()
        answers = [await clinic.post(room=room) for room in (other.id, "x" * 22, "%00")]
        assert {(a.status, await a.text()) for a in answers} == {(401, await answers[0].text())}

    async def test_a_revoked_link(self, clinic):
        link, secret = await clinic.live.store.mint_link(clinic.room, "clinician", "")
        await clinic.live.api.post(f"/api/v1/links/{link.id}/revoke")
        await clinic.live.store.revoke_link(link.id)
        assert await code(await clinic.post(token=secret)) == (403, "link_revoked")

    async def test_an_observer_may_not_publish(self, clinic):
        link = (await clinic.live.link(clinic.room, "observer")).partition("#")[2]
        assert (await clinic.post(token=link)).status == 403

    async def test_no_page_may(self, clinic):
        answer = await clinic.post(headers={**SDP, "Origin": clinic.live.origin})
        assert await code(answer) == (403, "forbidden_origin")
        answer = await clinic.call("OPTIONS", f"/whip/{clinic.room.id}", headers={"Origin": "https://evil.example"})
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("Access-Control")]

    async def test_bodies(self, clinic):
        assert await code(await clinic.post(headers={"Content-Type": "text/plain"})) == (415, "unsupported_media_type")
        assert await code(await clinic.post("x" * 70_000)) == (413, "too_large")
        assert await code(await clinic.post("v=0")) == (400, "bad_sdp")
        assert await code(await clinic.post(VIEWER)) == (422, "wrong_way")
        assert await code(await clinic.post(CAMERA, kind="whep")) == (422, "wrong_way")

    async def test_codecs_that_nobody_else_has(self, clinic):
        assert (await clinic.post(offer(section("video", "sendonly", "H264")))).status == 201
        refused = await clinic.post(offer(section("video", "sendonly", "VP8")))
        assert await code(refused) == (406, "no_common_codec")

    async def test_methods(self, clinic):
        for method in ("GET", "PUT", "DELETE"):
            answer = await clinic.call(method, f"/whip/{clinic.room.id}")
            assert await code(answer) == (405, "method_not_allowed")
        answer = await clinic.call("OPTIONS", f"/whep/{clinic.room.id}")
        assert answer.status == 204 and answer.headers["Accept-Post"] == "application/sdp"

    async def test_devices_have_a_limit(self, clinic):
        statuses = [(await clinic.post(offer(section("video", "sendonly")))).status for _ in range(5)]
        assert statuses == [201] * 4 + [429]

    async def test_their_tracks_have_a_limit(self, clinic):
        statuses = [(await clinic.post()).status for _ in range(MAX_DEVICE_SOURCES // 2)]
        assert statuses == [201] * (MAX_DEVICE_SOURCES // 2)
        assert await code(await clinic.post()) == (503, "room_full")

    async def test_somebody_who_is_not_there(self, clinic):
        answer = await clinic.post(VIEWER, kind="whep", query="?participant=nobody")
        assert await code(answer) == (404, "unknown_participant")

    async def test_a_direct_room_has_no_media_server(self, clinic):
        await clinic.open(topology="direct-only")
        assert await code(await clinic.post()) == (403, "direct_only")


class TestResource:
    async def test_the_end(self, clinic):
        place = (await clinic.post()).headers["Location"]
        assert await code(await clinic.call("DELETE", place, token=clinic.patient)) == (401, "link_unknown")
        assert await code(await clinic.call("DELETE", place.replace("whip", "whep"))) == (404, "not_found")
        assert (await clinic.call("DELETE", place)).status == 200
        assert await code(await clinic.call("DELETE", place)) == (404, "not_found")

    async def test_trickle(self, clinic):
        answer = await clinic.post()
        place, etag = answer.headers["Location"], answer.headers["ETag"]
        candidates = "a=ice-ufrag:Yu2x\r\na=ice-pwd:rm5ZQW1kVxGmYBHkGvz2nbnG\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
        candidates += "a=candidate:1 1 udp 2130706431 192.0.2.9 9 typ host\r\na=end-of-candidates\r\n"

        async def patch(data=candidates, headers=None, **more):
            return await clinic.call("PATCH", place, headers=headers or {**FRAGMENT, **more}, data=data)

        assert (await patch(**{"If-Match": etag})).status == 204
        assert await code(await patch()) == (428, "precondition_required")
        assert await code(await patch(**{"If-Match": '"old"'})) == (412, "precondition_failed")
        assert (await patch(headers={"If-Match": etag, **SDP})).status == 415
        assert await code(await patch("nonsense", **{"If-Match": etag})) == (400, "bad_sdp")
        assert await code(await patch("a=candidate:x", **{"If-Match": etag})) == (400, "bad_sdp")
        restart = candidates.replace("Yu2x", "Zz9y")
        answer = await patch(restart, **{"If-Match": "*"})
        text = await answer.text()
        assert answer.status == 200 and answer.content_type == "application/trickle-ice-sdpfrag"
        assert answer.headers["ETag"] != etag
        assert f'"{found(r"a=ice-ufrag:(.+)", text).strip()}"' == answer.headers["ETag"]
        assert "a=candidate" in text and "a=ice-lite" in text
        assert await code(await patch(**{"If-Match": etag})) == (412, "precondition_failed")
        assert (await patch(restart, **{"If-Match": answer.headers["ETag"]})).status == 204

    async def test_the_room_ends(self, clinic):
        place = (await clinic.post()).headers["Location"]
        answer = await clinic.live.api.post(f"/api/v1/rooms/{clinic.room.id}/end")
        assert answer.status < 300
        assert await code(await clinic.call("DELETE", place)) == (404, "not_found")
        assert (await code(await clinic.post()))[0] == 404


@asynccontextmanager
async def aiortc_peer() -> AsyncIterator[RTCPeerConnection]:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        yield peer
    finally:
        await peer.close()


async def connect(clinic: Clinic, peer: RTCPeerConnection, kind: str, **more: str) -> aiohttp.ClientResponse:
    """What a WHIP or WHEP client does: one offer, with all of its candidates, and one answer."""
    await peer.setLocalDescription(await peer.createOffer())
    answer = await clinic.post(peer.localDescription.sdp, kind=kind, **more)
    assert answer.status == 201, await answer.text()
    await peer.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
    return answer


async def publish(clinic: Clinic, peer: RTCPeerConnection, **more: str) -> aiohttp.ClientResponse:
    peer.addTrack(AudioStreamTrack())
    peer.addTrack(VideoStreamTrack())
    return await connect(clinic, peer, "whip", **more)


async def watch(clinic: Clinic, peer: RTCPeerConnection, **more: str) -> aiohttp.ClientResponse:
    for kind in ("audio", "video"):
        peer.addTransceiver(kind, direction="recvonly")
    return await connect(clinic, peer, "whep", **more)


async def received(peer: RTCPeerConnection) -> tuple[int, int]:
    """Decode something of both kinds; return the size of the picture."""
    async with asyncio.timeout(20):
        for receiver in peer.getReceivers():
            frame = await receiver.track.recv()
            if receiver.track.kind == "video":
                size = frame.width, frame.height
    return size


class TestMedia:
    async def test_it_is_counted(self, clinic):
        async def transports() -> float:
            text = await (await clinic.http.get("/metrics")).text()
            return float(found(r"(?m)^colloque_media_transports (\S+)", text))

        before = await transports()
        place = (await clinic.post()).headers["Location"]
        assert await transports() == before + 1
        await clinic.call("DELETE", place)
        assert await transports() == before

    async def test_from_a_device_to_a_viewer(self, clinic):
        other = (await clinic.live.link(clinic.room, "clinician")).partition("#")[2]
        async with aiortc_peer() as camera, aiortc_peer() as viewer:
            await publish(clinic, camera)
            await watch(clinic, viewer, token=other)
            assert await received(viewer) == (640, 480)

    async def test_a_viewer_who_came_first(self, clinic):
        other = (await clinic.live.link(clinic.room, "clinician")).partition("#")[2]
        async with aiortc_peer() as camera, aiortc_peer() as viewer:
            await watch(clinic, viewer, token=other)
            await publish(clinic, camera)
            assert await received(viewer) == (640, 480)

    async def test_a_device_is_its_links_participant(self, clinic):
        """The page of another person is told of them; their end is told too."""
        url = await clinic.live.link(clinic.room, "clinician")
        page = await Participant.arrive(clinic.live, url)
        await page.send("ready")
        await page.send("join")
        await page.next("state")
        async with aiortc_peer() as camera:
            place = (await publish(clinic, camera)).headers["Location"]
            peer = (await page.next("peerJoined"))["peer"]
            assert (peer["role"], peer["connection"], peer["direct"]) == ("clinician", "online", False)
            assert (await page.next("relayWanted"))["video"] == 1
            await clinic.call("DELETE", place)
            assert await page.next("peerLeft") == {"type": "peerLeft", "id": peer["id"], "why": "left"}
        await page.close()
