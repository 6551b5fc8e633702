"""GStreamer's webrtcbin as a WHIP or WHEP client. Runs with Debian's Python, which has the bindings. [IO]

    /usr/bin/python3 gstreamer_peer.py publish|watch URL TOKEN

Each second a line of JSON on standard output: {"video": frames, "audio": frames}, decoded ones when watching. Ends when
standard input closes.
"""

import json
import sys
import threading
import urllib.request

import gi  # type: ignore[import-not-found]  # Debian's, not of our environment

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # type: ignore[import-not-found]  # noqa: E402

PUBLISH = """webrtcbin name=peer bundle-policy=max-bundle
  videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1
    ! vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay name=video picture-id-mode=15-bit
    ! application/x-rtp,media=video,encoding-name=VP8,payload=96 ! peer.
  audiotestsrc is-live=true ! audioconvert ! opusenc ! rtpopuspay name=audio
    ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! peer."""
CAPS = {
    "audio": "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2",
    "video": "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000",
}
DECODE = {
    "audio": "rtpopusdepay ! opusdec ! fakesink name=sink sync=false",
    "video": "rtpvp8depay ! vp8dec ! fakesink name=sink sync=false",
}
COUNTS = {"audio": 0, "video": 0}


def count(kind, pad):
    def seen(_pad, _info):
        COUNTS[kind] += 1
        return Gst.PadProbeReturn.OK

    pad.add_probe(Gst.PadProbeType.BUFFER, seen)


class Peer:
    def __init__(self, mode, url, token):
        self.url, self.token = url, token
        if mode == "publish":
            self.pipeline = Gst.parse_launch(PUBLISH)
            self.bin = self.pipeline.get_by_name("peer")
            for kind in CAPS:
                count(kind, self.pipeline.get_by_name(kind).get_static_pad("sink"))
            for number in range(2):
                self.bin.emit("get-transceiver", number).set_property(
                    "direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY
                )
        else:
            self.pipeline = Gst.Pipeline.new()
            self.bin = Gst.ElementFactory.make("webrtcbin", "peer")
            self.bin.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
            self.pipeline.add(self.bin)
            for caps in CAPS.values():
                direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
                self.bin.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
            self.bin.connect("pad-added", self.on_pad)
        self.bin.connect("on-negotiation-needed", self.on_negotiation)
        self.bin.connect("notify::ice-gathering-state", self.on_gathering)
        self.offered = False
        self.pipeline.set_state(Gst.State.PLAYING)

    def on_negotiation(self, peer):
        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_offer, None))

    def on_offer(self, promise, _):
        reply = promise.get_reply()  # the offer lives as long as it does
        self.bin.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def on_gathering(self, peer, _):
        state = peer.get_property("ice-gathering-state")
        if state == GstWebRTC.WebRTCICEGatheringState.COMPLETE and not self.offered:
            self.offered = True
            threading.Thread(target=self.post).start()

    def post(self):
        offer = self.bin.get_property("local-description").sdp.as_text()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/sdp"}
        with urllib.request.urlopen(urllib.request.Request(self.url, offer.encode(), headers)) as answer:
            text = answer.read()
        _, message = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(text, message)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.bin.emit("set-remote-description", answer, Gst.Promise.new())

    def on_pad(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        decoder = Gst.parse_bin_from_description(DECODE[kind], True)
        count(kind, decoder.get_by_name("sink").get_static_pad("sink"))
        self.pipeline.add(decoder)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))


def tell():
    print(json.dumps(COUNTS), flush=True)
    return True


if __name__ == "__main__":
    Gst.init(None)
    peer = Peer(*sys.argv[1:4])
    loop = GLib.MainLoop()
    GLib.timeout_add_seconds(1, tell)
    GLib.io_add_watch(sys.stdin.fileno(), GLib.PRIORITY_DEFAULT, GLib.IOCondition.HUP, lambda *_: loop.quit())
    loop.run()
    peer.pipeline.set_state(Gst.State.NULL)
