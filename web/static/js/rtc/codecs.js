/**
 * Which codecs we name to the media server: those that it forwards, each profile once, in the browser's order.
 *
 * Chromium describes a picture with some forty formats, 6 kB a section: twelve people would not fit into a message of the signalling
 * (server/signalling/PROTOCOL.md, section 10).
 *
 * Spec: W3C WebRTC section 5.4, `setCodecPreferences`; RFC 6184 section 8.1 (H.264), RFC 7742 (what every browser decodes).
 */

/** @import { Kind } from './peer.js' */

/**
 * @template {{mimeType: string, sdpFmtpLine?: string}} Codec
 * @param {Kind} kind
 * @param {readonly Codec[]} codecs what the browser can
 * @returns {Codec[]} in their order; empty when it names none of them
 */
export function forwarded(kind, codecs) {
  /** @type {Map<string | null, Codec>} */
  const best = new Map();
  for (const codec of codecs) {
    const name = flavour(kind, codec);
    const before = best.get(name);
    if (before === undefined || (isConstrained(codec) && !isConstrained(before))) best.set(name, codec);
  }
  best.delete(null);
  return codecs.filter((codec) => best.get(flavour(kind, codec)) === codec);
}

/**
 * What has to be the same at both ends; as in server/signalling/media_negotiation.py, without what it would not choose when a browser is there.
 *
 * @param {Kind} kind
 * @param {{mimeType: string, sdpFmtpLine?: string}} codec
 * @returns {string | null} null: not to be named
 */
function flavour(kind, { mimeType, sdpFmtpLine = '' }) {
  const name = mimeType.slice(mimeType.indexOf('/') + 1).toLowerCase();
  if (kind === 'audio') return name === 'opus' || name === 'red' ? name : null;
  switch (name) {
    case 'vp8':
    case 'rtx':
      return name;
    case 'vp9':
      return /profile-id=[1-9]/.test(sdpFmtpLine) ? null : name;
    case 'av1':
      return /profile=[1-9]/.test(sdpFmtpLine) ? null : name;
    case 'h264': {
      // Devices may have one profile only, so each counts; packets of one slice each (mode 0) are for those that have nothing else.
      const profile = /profile-level-id=(42|4d|64)/i.exec(sdpFmtpLine)?.[1]?.toLowerCase();
      return profile !== undefined && /packetization-mode=1/.test(sdpFmtpLine) ? `${name}/${profile}` : null;
    }
    default:
      return null;
  }
}

/** H.264 Constrained Baseline, which everybody decodes (RFC 7742 section 6.2). @param {{sdpFmtpLine?: string}} codec */
function isConstrained({ sdpFmtpLine = '' }) {
  return /profile-level-id=42[4-7c-f]/i.test(sdpFmtpLine);
}
