"""FFmpeg's WHIP muxer, inside PyAV. [IO]

    python ffmpeg_peer.py URL TOKEN CERTIFICATE KEY

As gstreamer_peer.py. FFmpeg sends when it is given something: so the frames come at their own pace.
"""

import json
import sys
import threading
import time
from fractions import Fraction

import av
import numpy as np

FRAME_RATE, SAMPLE_RATE, SAMPLES = 15, 48_000, 960


def main(url: str, token: str, certificate: str, key: str) -> None:
    """Publish until standard input closes."""
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    options = {"authorization": token, "cert_file": certificate, "key_file": key}
    counts = {"video": 0, "audio": 0}
    with av.open(url, "w", format="whip", options=options) as output:
        video = output.add_stream("libx264", rate=FRAME_RATE)
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        video.options = {"profile": "baseline", "tune": "zerolatency", "preset": "ultrafast", "g": str(FRAME_RATE)}
        audio = output.add_stream("libopus", rate=SAMPLE_RATE, layout="stereo")
        audio.options = {"frame_duration": "20"}
        began = told = time.monotonic()
        while not over.is_set():
            elapsed = time.monotonic() - began
            while counts["video"] < elapsed * FRAME_RATE:
                picture = np.full((180, 320, 3), counts["video"] * 4 % 256, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture)
                frame.pts, frame.time_base = counts["video"], Fraction(1, FRAME_RATE)
                for packet in video.encode(frame):
                    output.mux(packet)
                counts["video"] += 1
            while counts["audio"] * SAMPLES < elapsed * SAMPLE_RATE:
                sound = av.AudioFrame.from_ndarray(np.zeros((1, 2 * SAMPLES), np.int16), "s16", "stereo")
                sound.sample_rate, sound.pts = SAMPLE_RATE, counts["audio"] * SAMPLES
                for packet in audio.encode(sound):
                    output.mux(packet)
                counts["audio"] += 1
            if time.monotonic() > told + 1:
                told = time.monotonic()
                print(json.dumps(counts), flush=True)
            time.sleep(0.005)


if __name__ == "__main__":
    main(*sys.argv[1:5])
