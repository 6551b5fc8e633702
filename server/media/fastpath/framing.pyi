from typing import final

from typing_extensions import Buffer

@final
class Reader:
    """Takes the frames out of one stream."""

    def feed(self, data: Buffer) -> list[bytes | None]:
        """Return what has become whole with these bytes, in order; None stands for a frame of more than 1500 bytes."""
