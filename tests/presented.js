/**
 * Runs inside a page under test: notes what its person sees and hears of the others, from now on.
 *
 * Pictures: every frame that a visible `<video>` of somebody else presents, with the number burnt into it.
 * Sound: all tracks of the page as loud as they are played, mixed into an AudioWorklet, which notes how loud each 128 samples are.
 *
 * Worklet and page are this one file: a worklet has no `document`.
 */

const CELL = 8;

if (globalThis.AudioWorkletProcessor) {
  registerProcessor(
    'loudness',
    class extends AudioWorkletProcessor {
      values = [];

      process([input]) {
        let sum = 0;
        for (const sample of input[0] ?? []) sum += sample * sample;
        this.values.push(Math.sqrt(sum / 128));
        if (this.values.length === 75) this.port.postMessage(this.values.splice(0)); // 5 times a second
        return true;
      }
    },
  );
} else {
  globalThis.__presented = { pictures: [], loudness: [], quantumMs: 0, start };
}

/** @param {string} selector of the videos of the others @param {number} columns @param {number} rows @param {string} source of this file */
async function start(selector, columns, rows, source) {
  const noted = globalThis.__presented;
  const context = new AudioContext({ sampleRate: 48000 });
  const place = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  await context.audioWorklet.addModule(place);
  const meter = new AudioWorkletNode(context, 'loudness');
  meter.port.onmessage = ({ data }) => noted.loudness.push(...data);
  meter.connect(context.destination);
  noted.quantumMs = 128 / 48;
  const watched = new WeakSet();
  const sources = new Map();

  function follow() {
    const audible = new Map();
    for (const video of document.querySelectorAll('video, audio')) {
      if (video.matches(selector) && video instanceof HTMLVideoElement && !watched.has(video)) watch(video);
      if (video.paused) continue;
      const heard = video.muted ? 0 : video.volume;
      // An element that plays without sound is tapped too: when its sound is turned on, it is there at once, and so it is here.
      for (const track of video.srcObject?.getAudioTracks() ?? []) audible.set(track, Math.max(heard, audible.get(track) ?? 0));
    }
    for (const [track, volume] of audible) {
      let tap = sources.get(track);
      if (tap === undefined) {
        tap = { source: context.createMediaStreamSource(new MediaStream([track])), gain: context.createGain() };
        tap.source.connect(tap.gain).connect(meter);
        sources.set(track, tap);
      }
      tap.gain.gain.value = volume;
    }
    for (const [track, { source, gain }] of sources) {
      if (audible.has(track)) continue;
      source.disconnect();
      gain.disconnect();
      sources.delete(track);
    }
  }

  /** @param {HTMLVideoElement} video */
  function watch(video) {
    watched.add(video);
    const canvas = Object.assign(document.createElement('canvas'), { width: columns * CELL, height: rows * CELL });
    const drawing = canvas.getContext('2d', { willReadFrequently: true });
    const note = () => {
      if (!video.isConnected) return;
      video.requestVideoFrameCallback(note);
      if (!video.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return;
      drawing.drawImage(video, 0, 0, canvas.width, canvas.height);
      noted.pictures.push([performance.now(), video.dataset.peer ?? '', video.videoWidth, number(drawing, columns)]);
    };
    video.requestVideoFrameCallback(note);
  }

  follow();
  setInterval(follow, 10);
}

/** The 8 bits of the first row of cells. */
function number(drawing, columns) {
  const { data } = drawing.getImageData(0, 0, columns * CELL, CELL);
  let value = 0;
  for (let column = 0; column < columns; column++) value = (value << 1) | (data[(4 * columns * CELL + column * CELL + 4) * 4] > 128 ? 1 : 0);
  return value;
}
