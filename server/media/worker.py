"""The media plane: media workers, each with its sockets, its socket loop's thread, its relay and its Sfu. [IO]"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from server.config import MediaConfig
from server.media.events import MediaEvent
from server.media.sfu import Sfu


class MediaPlane:
    """All media workers of one server.

    Args:
        config: The `[media]` section.
        on_event: Called with each media event.
    """

    def __init__(self, config: MediaConfig, on_event: Callable[[MediaEvent], None] = lambda event: None) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Open the sockets and start the threads.

        Raises:
            ConfigError: A port is taken, or an address is none of this machine's.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Say goodbye to every peer, stop the threads, close the sockets."""
        raise NotImplementedError

    def sfu(self, room: str) -> Sfu:
        """Return the Sfu that has the room, or is to have it: the one with the fewest transports.

        What signalling does with it is drained by itself, in the next turn of the event loop.
        """
        raise NotImplementedError

    def statistics(self) -> Mapping[str, float]:
        """Return counters and gauges of all workers, by their name in metrics.py."""
        raise NotImplementedError
