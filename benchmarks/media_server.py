"""Our media plane in a process of its own, told what to do over a Unix socket: a server without its signalling. [IO]

    python -m benchmarks.media_server SOCKET ADDRESS

A request is a line of JSON, its answer another:
`{"id", "room", "participant", "ufrag", "pwd", "fingerprint", "publish": [...], "subscribe": [...]}` opens a transport;
a section is `{"mid", "kind"}` with `ssrc` (publish) or `source` (subscribe). `{}` asks for the statistics.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from loadtest.sdp import EXTENSIONS, OFFERED, PAYLOAD_TYPES
from server.config import MediaConfig
from server.media.parameters import (
    CodecParameters,
    DtlsParameters,
    EncodingParameters,
    Fingerprint,
    HeaderExtension,
    IceParameters,
    TrackParameters,
)
from server.media.worker import MediaPlane

_EXTENSIONS = tuple(HeaderExtension(OFFERED[name], uri) for name, uri in EXTENSIONS.items())
_CODECS = {
    "audio": CodecParameters("opus", PAYLOAD_TYPES["audio"], 48_000, 2, feedback=("transport-cc",)),
    "video": CodecParameters(
        "VP8",
        PAYLOAD_TYPES["video"],
        90_000,
        feedback=("transport-cc", "ccm fir", "nack", "nack pli"),
        rtx_payload_type=97,
    ),
}


async def main(path: str, address: str) -> None:
    """Serve until the connection ends."""
    plane = MediaPlane(MediaConfig(addresses=(address,), bind=(address,), workers=1, max_in_conversation=1000))
    await plane.start()
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            request = json.loads(line)
            writer.write(json.dumps(answer(plane, request)).encode() + b"\n")
        writer.close()
        done.set()

    async with await asyncio.start_unix_server(serve, path, limit=1 << 20):
        await done.wait()
    await plane.stop()


def answer(plane: MediaPlane, request: dict[str, Any]) -> dict[str, Any]:
    """Do what a browser's offer would have come to, and say what its answer would."""
    if not request:
        return vars(plane.statistics())
    now = time.monotonic()
    sfu = plane.sfu(request["room"])
    local = sfu.open_transport(
        request["id"],
        request["room"],
        request["participant"],
        IceParameters(request["ufrag"], request["pwd"]),
        DtlsParameters((Fingerprint("sha-256", request["fingerprint"]),), "client"),
        _EXTENSIONS,
        now,
    )
    for section in request["publish"]:
        encodings = (EncodingParameters(ssrc=section["ssrc"]),)
        sfu.publish(request["id"], _track(section, "sendonly", encodings), now)
    for section in request["subscribe"]:
        sfu.subscribe(request["id"], _track(section, "recvonly", ()), section["source"], now)
    udp = next(candidate for candidate in local.candidates if candidate.kind == "udp")
    return {
        "ufrag": local.ice.ufrag,
        "pwd": local.ice.pwd,
        "fingerprint": local.dtls.fingerprints[0].value,
        "ip": udp.ip,
        "port": udp.port,
    }


def _track(section: dict[str, Any], direction: Any, encodings: tuple[EncodingParameters, ...]) -> TrackParameters:
    kind = section["kind"]
    return TrackParameters(section["mid"], kind, direction, (_CODECS[kind],), _EXTENSIONS, encodings, "load")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
