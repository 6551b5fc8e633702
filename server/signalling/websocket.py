"""One aiohttp WebSocket per participant: read, decode, drive a `Session`, write. [IO]"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from aiohttp import web

if TYPE_CHECKING:
    from server.catalogue import Catalogue
    from server.config import Config
    from server.metrics import Metrics
    from server.signalling.turn import IceServerSource
    from server.store import Store


class SignallingEndpoint:
    """The route `/ws`, and the live rooms behind it (`LiveRooms` of `server/api.py`)."""

    def __init__(
        self, config: Config, store: Store, ice: IceServerSource, catalogue: Catalogue, metrics: Metrics
    ) -> None:
        self._config = config
        self._store = store
        self._ice = ice
        self._catalogue = catalogue
        self._metrics = metrics

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one participant's WebSocket until it closes."""
        raise web.HTTPServiceUnavailable

    async def shutdown(self) -> None:
        """Tell everybody when to come back, then close."""

    def end_room(self, room_id: str, by: Literal["host"]) -> None:
        """End a room for everybody in it; the caller has already recorded the end in the store."""

    def drop_link(self, link_id: str, code: str) -> None:
        """Close the seats that came through a link, with `link_revoked`; the caller has recorded the revocation."""

    def counts(self, room_id: str) -> dict[str, int]:
        """Return how many participants of a room are in each state; empty when nobody is connected."""
        return {}
