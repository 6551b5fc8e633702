"""Logos: what is taken, what is left of it, and what is refused before it costs anything."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from server.logo import MAX_BYTES, LogoError, normalise
from tests.cost import assert_costs_less


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes of pixels do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    picture.load()
    return picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_three_formats_become_png(kind: str):
    picture = opened(normalise(file_of(Image.new("RGB", (200, 100), "#1f6f8b"), kind)))
    assert picture.size == (200, 100)
    red, green, blue, alpha = picture.convert("RGBA").getpixel((50, 50))  # type: ignore[misc]
    assert (abs(red - 0x1F) < 4, abs(green - 0x6F) < 4, abs(blue - 0x8B) < 4, alpha) == (True, True, True, 255)


def test_transparency_stays():
    picture = opened(normalise(file_of(Image.new("RGBA", (10, 10), (255, 0, 0, 40)))))
    assert picture.getpixel((5, 5)) == (255, 0, 0, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "CMYK"])
def test_any_way_to_store_pixels(mode: str):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert opened(normalise(file_of(Image.new(mode, (8, 8)), kind))).mode == "RGBA"


def test_nothing_but_the_picture_is_kept():
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("Author", "canary")
    metadata.add_itxt("Comment", "canary")
    exif = Image.Exif()
    exif[0x010E] = "canary"
    data = file_of(Image.new("RGB", (8, 8)), pnginfo=metadata, exif=exif, icc_profile=b"canary profile", dpi=(300, 300))
    assert b"canary" in data
    kept = normalise(data + b"canary after the end")
    assert b"canary" not in kept
    assert opened(kept).info == {}


def test_a_photo_taken_sideways_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(normalise(file_of(Image.new("RGB", (40, 20)), "JPEG", exif=exif))).size == (20, 40)


def test_an_animation_becomes_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    picture = opened(normalise(file_of(frames[0], "PNG", save_all=True, append_images=frames[1:])))
    assert getattr(picture, "n_frames", 1) == 1
    assert picture.getpixel((1, 1)) == (255, 0, 0, 255)


def test_what_is_kept_is_small():
    noise = Image.frombytes("RGB", (180, 180), random.Random(1).randbytes(180 * 180 * 3))
    assert len(normalise(file_of(noise))) <= MAX_BYTES
    large = Image.frombytes("L", (800, 800), random.Random(1).randbytes(800 * 800))
    data = file_of(large, "JPEG", quality=1)
    assert len(data) <= MAX_BYTES
    kept = normalise(data)
    assert len(kept) <= MAX_BYTES
    assert max(opened(kept).size) <= 512


@pytest.mark.parametrize("size", [(1025, 10), (10, 1025), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]):
    def refused() -> None:
        with pytest.raises(LogoError):
            normalise(png_claiming(*size))

    assert_costs_less(0.5, refused)


@pytest.mark.parametrize("size", [(1025, 1), (1, 1025)])
def test_a_sound_picture_may_be_too_wide_or_too_high(size: tuple[int, int]):
    with pytest.raises(LogoError, match="1024 x 1024"):
        normalise(file_of(Image.new("RGB", size)))


def test_a_picture_that_lacks_its_end():
    with pytest.raises(LogoError, match="cannot be read"):
        normalise(png_claiming(1000, 1000))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "EPS"])
def test_other_formats_are_not_even_tried(kind: str):
    with pytest.raises(LogoError, match="PNG, JPEG or WebP"):
        normalise(file_of(Image.new("RGB", (16, 16)), kind))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"\xff\xd8\xff", b"RIFF\x04\0\0\0WEBP", bytes(999)]
)
def test_junk(data: bytes):
    with pytest.raises(LogoError):
        normalise(data)


def test_too_many_bytes():
    with pytest.raises(LogoError, match="100 kB"):
        normalise(file_of(Image.new("RGB", (8, 8))) + bytes(MAX_BYTES))


SEEDS = [file_of(Image.new("RGB", (8, 8), "teal"), kind) for kind in ("PNG", "JPEG", "WEBP")]


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
@settings(max_examples=150, deadline=None)
def test_no_damage_gets_further_than_a_refusal(seed: bytes, changes: list[tuple[int, int]]):
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(LogoError):
        assert max(opened(normalise(bytes(data))).size) <= 512
