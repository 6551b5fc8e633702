// Runs in the page before its own scripts: a camera, a microphone and another person that are the same every time.
{
  const SKIN = ['#e8b894', '#c98f6b', '#8d5b3f'];

  /** A person in a room, drawn: enough to judge how a picture sits in the page. */
  function portrait(seed, width, height) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    let tick = 0;
    const draw = () => {
      const wall = context.createLinearGradient(0, 0, width, height);
      wall.addColorStop(0, ['#dfe7e4', '#e9dfd2', '#d9e0ea'][seed % 3]);
      wall.addColorStop(1, ['#a9bdb8', '#c2ad93', '#a3b1c4'][seed % 3]);
      context.fillStyle = wall;
      context.fillRect(0, 0, width, height);
      const unit = height / 10, x = width / 2 + Math.sin(tick++ / 12) * unit * 0.1;
      context.fillStyle = ['#f4f6f6', '#5b6f86', '#7a4b5e'][seed % 3];
      context.beginPath(); context.ellipse(x, height * 1.02, unit * 4, unit * 3.6, 0, 0, 7); context.fill();
      context.fillStyle = SKIN[seed % 3];
      context.fillRect(x - unit * 0.7, unit * 5.4, unit * 1.4, unit * 1.6);
      context.beginPath(); context.ellipse(x, unit * 4.1, unit * 1.7, unit * 2.1, 0, 0, 7); context.fill();
      context.fillStyle = ['#3a2f2a', '#d8d8d8', '#1d1a19'][seed % 3];
      context.beginPath(); context.ellipse(x, unit * 3.1, unit * 1.85, unit * 1.5, 0, Math.PI, 0); context.fill();
      context.fillStyle = '#2b2320';
      for (const side of [-0.6, 0.6]) { context.beginPath(); context.arc(x + side * unit, unit * 4, unit * 0.14, 0, 7); context.fill(); }
      context.strokeStyle = '#8c4a3c'; context.lineWidth = unit * 0.12;
      context.beginPath(); context.arc(x, unit * 4.6, unit * 0.6, 0.3, Math.PI - 0.3); context.stroke();
    };
    draw();
    setInterval(draw, 250); // enough to be alive, little to encode
    return canvas.captureStream(4).getVideoTracks()[0];
  }

  function tone() {
    const context = new AudioContext();
    const source = new OscillatorNode(context, { frequency: 220 });
    const output = context.createMediaStreamDestination();
    source.connect(new GainNode(context, { gain: 0.3 })).connect(output);
    source.start();
    return output.stream.getAudioTracks()[0];
  }

  const devices = [
    { kind: 'videoinput', deviceId: 'camera-1', label: 'Caméra intégrée (HP TrueVision HD)' },
    { kind: 'videoinput', deviceId: 'camera-2', label: 'Logitech C920' },
    { kind: 'audioinput', deviceId: 'microphone-1', label: 'Micro intégré' },
    { kind: 'audiooutput', deviceId: 'speaker-1', label: 'Haut-parleurs' },
  ];
  const tracks = [];

  globalThis.fakeDevices = {
    error: '',
    missing: '',
    unplug(kind) {
      this.error = 'NotFoundError';
      for (const track of tracks) if (track.kind === kind) { track.stop(); track.dispatchEvent(new Event('ended')); }
    },
    allowSound() {
      HTMLMediaElement.prototype.play = this.play;
    },
    refuseSound() {
      const play = (this.play = HTMLMediaElement.prototype.play);
      HTMLMediaElement.prototype.play = function () {
        return this.muted ? play.call(this) : Promise.reject(new DOMException('no gesture', 'NotAllowedError'));
      };
    },
  };

  if (navigator.mediaDevices) {
    navigator.mediaDevices.getUserMedia = async ({ audio, video }) => {
      const { error, missing } = globalThis.fakeDevices;
      if (error) throw new DOMException('Permission denied', error);
      if ((missing === 'video' && video) || (missing === 'audio' && audio)) throw new DOMException('none', 'NotFoundError');
      const got = [...(audio ? [tone()] : []), ...(video ? [portrait(1, 640, 480)] : [])];
      for (const track of got) track.getSettings = () => ({ deviceId: track.kind === 'video' ? 'camera-1' : 'microphone-1' });
      tracks.push(...got);
      return new MediaStream(got);
    };
    navigator.mediaDevices.enumerateDevices = async () => devices.filter((device) => !(globalThis.fakeDevices.missing === 'video' && device.kind === 'videoinput'));
  }
  navigator.permissions.query = async ({ name }) => ({ name, state: globalThis.fakeDevices.error === 'NotAllowedError' ? 'denied' : 'prompt' });

  let people = 0;
  /** Answer an offer as another person would. */
  globalThis.farEnd = async (id, offer) => {
    const far = new RTCPeerConnection({ iceServers: [] });
    const seed = people++;
    (globalThis.farEnds ??= []).push(far);
    await far.setRemoteDescription(offer);
    const [wide, high] = seed % 2 ? [480, 640] : [640, 360];
    for (const transceiver of far.getTransceivers()) {
      const { kind } = transceiver.receiver.track;
      transceiver.direction = 'sendrecv';
      await transceiver.sender.replaceTrack(kind === 'video' ? portrait(seed % 3 === 1 ? 2 : seed % 3, wide, high) : tone());
    }
    await far.setLocalDescription();
    await new Promise((done) => {
      if (far.iceGatheringState === 'complete') done();
      far.addEventListener('icegatheringstatechange', () => far.iceGatheringState === 'complete' && done());
    });
    return far.localDescription.toJSON();
  };
}
