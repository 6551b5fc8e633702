"""What the fake camera and the fake microphone of a test browser deliver. [IO]

The camera is a Y4M film whose every frame carries its number and the camera's in large black and white cells, so that a
test reads from the pixels as shown to the person *whose* picture it is and that it moves. The microphone is a WAV file
with a beeping tone of a frequency of one's own: beeping, because noise suppression takes a steady tone for noise.

    +----+----+----+----+----+----+----+----+
    |  frame number, 8 bits, high bit first |
    |  the same, inverted                   |
    |  camera, 4 bits   |  inverted         |
    |  a disc on its way, so that the       |
    |  encoder has something to do          |
    +---------------------------------------+

Both films and tones are made once per machine and kept in the temporary directory.
"""

from __future__ import annotations

import math
import os
import random
import struct
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 320, 180
"""Enough for the cells to survive VP8 at its lowest rate; two browsers on two cores cannot carry much more."""
SMALL = 160, 90
"""For more browsers than two."""
FRAME_RATE = 15
FRAMES = 150
"""Ten seconds, then the film starts again at frame 0."""
COLUMNS, ROWS = 8, 5
_GRAIN = 8
"""Pixels across."""
"""Cells of 40 x 36 pixels; the counter uses the first three rows."""
SAMPLE_RATE_HZ = 48_000
BEEP_S, PAUSE_S = 0.5, 0.2

_CACHE = Path(tempfile.gettempdir()) / f"colloque-test-media-{os.getuid()}"


def camera_file(camera: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Return the film of one camera, for Chromium's `--use-file-for-fake-video-capture`.

    Args:
        camera: 0 to 15, read back by `browsers.read_counter`.
        size: Width and height in pixels.
    """
    if not 0 <= camera < 16:
        raise ValueError("a camera has 4 bits")
    name = "camera-{}-{}x{}-{}.y4m".format(camera, *size, FRAME_RATE)
    return _made(name, lambda path: _write_film(path, camera, *size))


def lively_file(camera: int) -> Path:
    """Return a film with grain under the cells, which takes several times the bits: as a person who moves does."""
    if not 0 <= camera < 16:
        raise ValueError("a camera has 4 bits")
    return _made(
        f"camera-{camera}-lively-{WIDTH}x{HEIGHT}-{FRAME_RATE}.y4m",
        lambda path: _write_film(path, camera, WIDTH, HEIGHT, grain=True),
    )


def tone_file(hz: int) -> Path:
    """Return a second-long-or-so loop of a beeping tone, for Chromium's `--use-file-for-fake-audio-capture`."""
    return _made(f"tone-{hz}.wav", lambda path: _write_tone(path, hz))


def bits(camera: int, frame: int) -> list[bool]:
    """Return the cells of the first three rows, True for white, row by row."""
    number = [bool(frame >> bit & 1) for bit in range(7, -1, -1)]
    name = [bool(camera >> bit & 1) for bit in range(3, -1, -1)]
    return [*number, *(not bit for bit in number), *name, *(not bit for bit in name)]


def _made(name: str, write: Callable[[Path], None]) -> Path:
    """Return a file of the cache, made first if it is missing; several test runs may do so at once."""
    path = _CACHE / name
    if not path.exists():
        _CACHE.mkdir(mode=0o700, exist_ok=True)
        draft = path.with_name(f"{name}.{os.getpid()}")
        write(draft)
        draft.replace(path)
    return path


def _write_film(path: Path, camera: int, width: int, height: int, *, grain: bool = False) -> None:
    cell_width, cell_height = width // COLUMNS, height // ROWS
    disc = height // 3
    # One tint per camera: a person who looks at a screenshot can tell them apart too.
    blue, red = (bytes([112 + camera % 4 * 12]), bytes([104 + camera // 4 * 16]))
    chance = random.Random(camera)
    chroma = blue * (width // 2 * height // 2) + red * (width // 2 * height // 2)
    with path.open("wb") as film:
        film.write(f"YUV4MPEG2 W{width} H{height} F{FRAME_RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in range(FRAMES):
            picture = Image.new("L", (width, height), 128)
            draw = ImageDraw.Draw(picture)
            for cell, white in enumerate(bits(camera, frame)):
                x, y = cell % COLUMNS * cell_width, cell // COLUMNS * cell_height
                draw.rectangle((x, y, x + cell_width - 1, y + cell_height - 1), fill=235 if white else 16)
            x = (width - disc) * frame // FRAMES
            draw.ellipse((x, height - disc - 6, x + disc, height - 6), fill=200)
            if grain:
                grains = Image.frombytes(
                    "L", (width // _GRAIN, disc // _GRAIN), chance.randbytes(width // _GRAIN * (disc // _GRAIN))
                )
                soft = grains.resize((width, disc), Image.Resampling.BILINEAR).point(lambda luma: 96 + luma // 4)
                picture.paste(soft, (0, height - disc))
            film.write(b"FRAME\n" + picture.tobytes() + chroma)


def _write_tone(path: Path, hz: int) -> None:
    beep, pause = int(BEEP_S * SAMPLE_RATE_HZ), int(PAUSE_S * SAMPLE_RATE_HZ)
    samples = [int(12_000 * math.sin(2 * math.pi * hz * n / SAMPLE_RATE_HZ)) for n in range(beep)]
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE_HZ)
        sound.writeframes(struct.pack(f"<{beep + pause}h", *samples, *[0] * pause) * 2)
