// Pion as a WHIP or WHEP client, built from Debian's packages (stacks.py).
//
//	pion publish|watch URL TOKEN [FILM.ivf]
//
// Each second a line of JSON on standard output: {"video": frames, "audio": packets}. Ends when standard input closes.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"
	"github.com/pion/webrtc/v3/pkg/media"
	"github.com/pion/webrtc/v3/pkg/media/ivfreader"
)

var video, audio int64

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func sendFilm(track *webrtc.TrackLocalStaticSample, path string) {
	for {
		file, err := os.Open(path)
		must(err)
		film, header, err := ivfreader.NewWith(file)
		must(err)
		period := time.Second * time.Duration(header.TimebaseNumerator) / time.Duration(header.TimebaseDenominator)
		for range time.Tick(period) {
			frame, _, err := film.ParseNextFrame()
			if err == io.EOF {
				break
			}
			must(err)
			must(track.WriteSample(media.Sample{Data: frame, Duration: period}))
			atomic.AddInt64(&video, 1)
		}
		file.Close()
	}
}

func sendSilence(track *webrtc.TrackLocalStaticSample) {
	for range time.Tick(20 * time.Millisecond) {
		must(track.WriteSample(media.Sample{Data: []byte{0xf8, 0xff, 0xfe}, Duration: 20 * time.Millisecond}))
		atomic.AddInt64(&audio, 1)
	}
}

func publish(peer *webrtc.PeerConnection, film string, connected <-chan struct{}) {
	picture, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "pion")
	must(err)
	sound, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "audio", "pion")
	must(err)
	for _, track := range []webrtc.TrackLocal{sound, picture} {
		direction := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}
		transceiver, err := peer.AddTransceiverFromTrack(track, direction)
		must(err)
		go func() { // RTCP has to be read for the interceptors to see it
			for {
				if _, _, err := transceiver.Sender().ReadRTCP(); err != nil {
					return
				}
			}
		}()
	}
	go func() {
		<-connected
		go sendSilence(sound)
		sendFilm(picture, film)
	}()
}

func watch(peer *webrtc.PeerConnection) {
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		direction := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
		_, err := peer.AddTransceiverFromKind(kind, direction)
		must(err)
	}
	peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		if track.Kind() == webrtc.RTPCodecTypeVideo {
			must(peer.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())}}))
		}
		for {
			packet, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			if track.Kind() == webrtc.RTPCodecTypeAudio {
				atomic.AddInt64(&audio, 1)
			} else if packet.Marker {
				atomic.AddInt64(&video, 1)
			}
		}
	})
}

func negotiate(peer *webrtc.PeerConnection, url, token string) {
	offer, err := peer.CreateOffer(nil)
	must(err)
	gathered := webrtc.GatheringCompletePromise(peer)
	must(peer.SetLocalDescription(offer))
	<-gathered
	request, err := http.NewRequest("POST", url, strings.NewReader(peer.LocalDescription().SDP))
	must(err)
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/sdp")
	response, err := http.DefaultClient.Do(request)
	must(err)
	text, err := io.ReadAll(response.Body)
	must(err)
	if response.StatusCode != http.StatusCreated {
		must(fmt.Errorf("%d: %s", response.StatusCode, text))
	}
	must(peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(text)}))
}

func main() {
	peer, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	must(err)
	connected := make(chan struct{})
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		fmt.Fprintln(os.Stderr, state)
		if state == webrtc.PeerConnectionStateConnected {
			close(connected)
		}
	})
	if os.Args[1] == "publish" {
		publish(peer, os.Args[4], connected)
	} else {
		watch(peer)
	}
	negotiate(peer, os.Args[2], os.Args[3])
	go func() {
		io.Copy(io.Discard, os.Stdin)
		peer.Close()
		os.Exit(0)
	}()
	for range time.Tick(time.Second) {
		line, _ := json.Marshal(map[string]int64{"video": atomic.LoadInt64(&video), "audio": atomic.LoadInt64(&audio)})
		fmt.Println(string(line))
	}
}
