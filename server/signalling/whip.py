"""WHIP and WHEP: devices that publish to a room, or watch it, by HTTP alone. [IO]

    POST   /whip/{room}                    publish (a dermatoscope, an ultrasound cart, OBS)      201, Location, ETag
    POST   /whep/{room}[?participant=ID]   watch everybody else in the room, or one of them       201, Location, ETag
    PATCH  .../{resource}                  candidates (204), or an ICE restart (200, a new ETag)
    DELETE .../{resource}                  the end (200)

The bearer token is a link's secret or a host's token, as in `hello`: what a device publishes appears as that link's
participant, whom a clinician has admitted. A device alone makes its participant be in the conversation, and its end
makes them leave. No page may call this: a request with an Origin is refused, and none gets CORS headers.

    request ─> who may (auth.py) ─> whose seat (registry.py) ─> RelayedRoom ─> answer

Spec: RFC 9725 (WHIP), draft-ietf-wish-whep-03, RFC 8840 (fragments), RFC 9457 (problems); SECURITY.md row 16.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from server.clock import now as clock_now
from server.clock import wall_now
from server.errors import ApiError, ProtocolError, RefusalError
from server.httpguard import Proxies, client_block
from server.ids import digest, new_id
from server.signalling.auth import Claims, Door
from server.signalling.limits import AddressLimits
from server.signalling.messages import VERSION, Hello, IceServer, TrackState
from server.signalling.relaying import DeviceAnswer, RelayedRoom
from server.signalling.sdpfrag import read_fragment, write_fragment

if TYPE_CHECKING:
    from server.config import HttpConfig
    from server.signalling.turn import IceServerSource
    from server.signalling.websocket import SignallingEndpoint
    from server.store import Store

SDP: Final = "application/sdp"
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
MAX_BODY_BYTES: Final = 65_536
_MAX_TOKEN: Final = 4096
"""As the secret of a hello."""

REFUSALS: Final[dict[str, tuple[int, str]]] = {
    "link_unknown": (401, "the bearer token opens nothing here"),
    "link_not_yet": (403, "the link is not valid yet"),
    "link_expired": (403, "the link has expired"),
    "link_revoked": (403, "the link was revoked"),
    "refused": (403, "a clinician has refused this participant"),
    "removed": (403, "a clinician has removed this participant"),
    "transferred": (403, "this participant was sent to another room"),
    "not_admitted": (403, "a clinician has to admit this participant first"),
    "not_permitted": (403, "this participant may not do that"),
    "direct_only": (403, "the room was made for direct connections only"),
    "not_found": (404, "there is no such resource; it may have ended"),
    "room_ended": (404, "the consultation is over"),
    "unknown_participant": (404, "no such participant is in the conversation"),
    "no_common_codec": (406, "none of the offered codecs is one that everybody in the room can use"),
    "not_joined": (409, "the page of this participant is open: enter the conversation there first"),
    "bad_sdp": (400, "the description does not parse, or is against the policy of PROTOCOL.md"),
    "wrong_way": (422, "nothing in the offer goes the way of this endpoint: WHIP publishes, WHEP watches"),
    "rate_limited": (429, "too many requests from this address: try again in a minute"),
    "too_many_devices": (429, "this participant has as many devices as may be at once"),
    "room_full": (503, "the room, or the media server, has no place now"),
}
"""Status and sentence of each code."""
_STATE: Final[dict[bool, TrackState]] = {True: "on", False: "off"}


@dataclass(eq=False)
class _Resource:
    """One device: what a Location names."""

    kind: str
    room: str
    relay: RelayedRoom = field(repr=False)
    transport: str
    token: str = field(repr=False)
    """Digest of the bearer token that made it, and that it answers to."""
    etag: str
    """Of its ICE session (RFC 9725 section 4.3.1): our ufrag."""


class Whip:
    """The routes of WHIP and WHEP.

    Memory: one entry per device; those that ended by themselves are swept when the next one comes.

    Args:
        config: Whose proxies are believed, and how many requests an address may make.
        store: Where links and keys are looked up.
        ice: The ICE servers that devices are told.
        endpoint: The live rooms.
    """

    def __init__(self, config: HttpConfig, store: Store, ice: IceServerSource, endpoint: SignallingEndpoint) -> None:
        self._store = store
        self._ice = ice
        self._endpoint = endpoint
        self._door = Door(store)
        self._proxies = Proxies(config.trusted_proxies)
        self._addresses = AddressLimits(config.max_connections_per_address, config.max_joins_per_address_per_minute)
        self._resources: dict[str, _Resource] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, for `Application.add_routes`."""
        found = []
        for kind in ("whip", "whep"):
            found += [
                web.post(f"/{kind}/{{room}}", self._guarded),
                web.options(f"/{kind}/{{room}}", self._guarded),
                web.patch(f"/{kind}/{{room}}/{{resource}}", self._guarded),
                web.delete(f"/{kind}/{{room}}/{{resource}}", self._guarded),
                web.options(f"/{kind}/{{room}}/{{resource}}", self._guarded),
            ]
        return found

    async def _guarded(self, request: web.Request) -> web.Response:
        """Refuse pages, then do what the method says; what is refused below has its status here."""
        if hdrs.ORIGIN in request.headers:
            raise ApiError(403, "forbidden_origin", "WHIP and WHEP are for devices, not for pages")
        handlers = {"POST": self._open, "PATCH": self._patch, "DELETE": self._delete, "OPTIONS": self._options}
        try:
            return await handlers[request.method](request)
        except ProtocolError as error:
            raise ApiError(REFUSALS[error.code][0], error.code, f"{REFUSALS[error.code][1]}: {error.detail}") from None
        except ApiError:
            raise
        except RefusalError as error:
            status, detail = REFUSALS[error.code]
            raise ApiError(status, error.code, detail) from None

    # The four methods ------------------------------------------------------------------------------------------------

    async def _open(self, request: web.Request) -> web.Response:
        token = _bearer(request)
        self._limit(request)
        offer = await _body(request, SDP)
        kind = request.path.split("/")[1]
        claims = await self._claims(request.match_info["room"], token)
        registry, now = self._endpoint.registry, clock_now()
        seats = [] if claims.room.id in registry.rooms else await self._store.seats(claims.room.id)
        registry.open(claims.room, seats, now)
        room, person = registry.enter_device(claims, now, wall_now())
        relay = room.paths.relay
        if relay is None:
            raise RefusalError("direct_only")
        room.join_device(person, now)
        try:
            if kind == "whip":
                answer = relay.publish_device(person.id, person.role, offer, now)
            else:
                only = request.query.get("participant", "")
                answer = relay.subscribe_device(person.id, only, offer, now)
            if person.by_device:
                published = relay.published(person.id)
                room.set_media(person, _STATE["audio" in published], _STATE["video" in published])
        except (ProtocolError, RefusalError):
            room.devices_changed(person.id, relay.devices(person.id), now)
            raise
        finally:
            room.paths.flush(now)
            self._endpoint.settle()
        return self._created(
            kind, claims.room.id, relay, answer, token, self._ice.for_participant(person.id, wall_now())
        )

    async def _patch(self, request: web.Request) -> web.Response:
        resource = self._find(request)
        fragment = await _body(request, FRAGMENT)
        wanted = request.headers.get(hdrs.IF_MATCH, "")
        if not wanted:
            raise ApiError(428, "precondition_required", 'say which ICE session with If-Match: its ETag, or "*"')
        if wanted not in ("*", '"*"', resource.etag):
            raise ApiError(412, "precondition_failed", "that ICE session is over: it was restarted")
        ice = read_fragment(fragment)
        if ice is None or not resource.relay.is_restart(resource.transport, ice):
            return web.Response(status=HTTPStatus.NO_CONTENT, headers={hdrs.ETAG: resource.etag})
        restarted = resource.relay.restart_device(resource.transport, ice, clock_now())
        resource.etag = f'"{restarted.local.ice.ufrag}"'
        body = write_fragment(restarted.local, restarted.kind, restarted.mid).encode()
        return web.Response(body=body, content_type=FRAGMENT, headers={hdrs.ETAG: resource.etag})

    async def _delete(self, request: web.Request) -> web.Response:
        resource = self._find(request)
        del self._resources[request.match_info["resource"]]
        now = clock_now()
        resource.relay.close_device(resource.transport, now)
        room = self._endpoint.registry.rooms.get(resource.room)
        if room is not None:
            room.paths.flush(now)
        self._endpoint.settle()
        return web.Response()

    async def _options(self, request: web.Request) -> web.Response:
        """Say what is taken here (RFC 9725 section 4.2); no CORS header is ever given."""
        if "resource" in request.match_info:
            return web.Response(status=204, headers={hdrs.ALLOW: "PATCH, DELETE, OPTIONS", "Accept-Patch": FRAGMENT})
        return web.Response(status=204, headers={hdrs.ALLOW: "POST, OPTIONS", "Accept-Post": SDP})

    # Inside ----------------------------------------------------------------------------------------------------------

    def _limit(self, request: web.Request) -> None:
        forwarded = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
        now = clock_now()
        self._addresses.forget(now)
        if not self._addresses.hello(client_block(self._proxies.client(request.remote or "", forwarded)), now):
            raise RefusalError("rate_limited")

    async def _claims(self, room_id: str, token: str) -> Claims:
        """Return what the token gives in this room; for every other one the answer is the same."""
        room = await self._store.room(room_id) if room_id.isprintable() else None
        hello = Hello(version=VERSION, tenant=room.tenant if room is not None else "", instance="device", secret=token)
        claims = await self._door.resolve(hello, wall_now())
        if claims.room.id != room_id:
            raise RefusalError("link_unknown")
        return claims

    def _created(
        self, kind: str, room: str, relay: RelayedRoom, answer: DeviceAnswer, token: str, servers: list[IceServer]
    ) -> web.Response:
        self._resources = {
            name: resource
            for name, resource in self._resources.items()
            if resource.relay.has_device(resource.transport)
        }
        name, etag = new_id(), f'"{answer.ufrag}"'
        self._resources[name] = _Resource(kind, room, relay, answer.transport, digest(token), etag)
        headers = {hdrs.LOCATION: f"/{kind}/{room}/{name}", hdrs.ETAG: etag, "Accept-Patch": FRAGMENT}
        response = web.Response(status=HTTPStatus.CREATED, body=answer.sdp.encode(), content_type=SDP, headers=headers)
        for link in _links(servers):
            response.headers.add(hdrs.LINK, link)
        return response

    def _find(self, request: web.Request) -> _Resource:
        """Return the resource of a request with its own token."""
        token = digest(_bearer(request))
        resource = self._resources.get(request.match_info["resource"])
        place = (request.path.split("/")[1], request.match_info["room"])
        if resource is None or (resource.kind, resource.room) != place:
            raise RefusalError("not_found")
        if not hmac.compare_digest(token, resource.token):
            raise RefusalError("link_unknown")
        if not resource.relay.has_device(resource.transport):
            del self._resources[request.match_info["resource"]]
            raise RefusalError("not_found")
        return resource


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN or not token.isascii() or not token.isprintable():
        raise ApiError(401, "link_unknown", "send a link's secret or a token: Authorization: Bearer ...")
    return token


async def _body(request: web.Request, content_type: str) -> str:
    if request.content_type != content_type:
        raise ApiError(415, "unsupported_media_type", f"the body is to be {content_type}")
    data = await request.read()
    if len(data) > MAX_BODY_BYTES:
        raise ApiError(413, "too_large", f"a description has at most {MAX_BODY_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("bad_sdp", "not UTF-8") from None


def _links(servers: list[IceServer]) -> Iterator[str]:
    """Write ICE servers as links (RFC 9725 section 4.6)."""
    for server in servers:
        for url in server.urls:
            if server.username is None:
                yield f'<{url}>; rel="ice-server"'
            else:
                yield (
                    f'<{url}>; rel="ice-server"; username="{server.username}"; credential="{server.credential}"; '
                    'credential-type="password"'
                )
