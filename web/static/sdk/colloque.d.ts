/**
 * Colloque in a page of your own: the consultation room in an iframe, its events out, your commands in.
 *
 *     import { Colloque } from 'https://video.example.org/static/sdk/colloque.js';
 *
 *     const room = Colloque.mount(document.querySelector('#room'), { url: link });
 *     room.on('waiting', ({ place }) => …);
 *     room.on('ended', () => room.destroy());
 *
 * The origin of your page must be in the clinic's list of embedding origins. Messages between the two pages carry a version and
 * are taken only from the exact origin of the other and from its very window; the secret of the link is never in one.
 */

export type Role = 'clinician' | 'patient' | 'guest' | 'observer';
export type Language = 'fr' | 'en';
export type TrackState = 'on' | 'off' | 'missing' | 'interrupted';

export interface Participant {
  id: string;
  role: Role;
  /** As it was given when the link was made. */
  name: string;
}

/** Somebody who is not in the conversation. */
export interface Visitor extends Participant {
  state: 'arrived' | 'waiting' | 'admitted' | 'left';
  connection: 'online' | 'reconnecting';
  /** How long they have been in this state. */
  sinceMs: number;
}

/** What `on` hands to its listener, by name of the event. */
export interface RoomEvents {
  /** The room knows whose link this is. Comes again after a reload inside the frame. */
  ready: { participant: Participant };
  /** In the waiting room; again whenever the place changes. `expected`: a clinician is here and sees that this person waits. */
  waiting: { place: number | null; expected: boolean };
  /** A clinician let this person in (clinicians themselves always may). */
  admitted: Record<string, never>;
  /** In the conversation. */
  joined: Record<string, never>;
  /** This person hung up or was sent out; the seat is kept. */
  left: { reason: string };
  /** Somebody else is in the conversation. */
  peerjoined: { peer: Participant };
  peerleft: { id: string; why: 'left' | 'timeout' | 'removed' | 'sentBack' | 'transferred' };
  /** To clinicians: everybody who is not in the conversation. Replaces the list before. */
  visitors: { visitors: Visitor[] };
  /** What the person's own microphone and camera do. */
  media: { microphone: TrackState; camera: TrackState };
  /** Of the path to one peer, every 2 s. */
  quality: { peer: string; level: 'good' | 'limited' | 'bad' | 'lost'; rttMs: number | null; loss: number | null };
  /** The consultation is over for everybody, or was over before. */
  ended: { by: 'clinician' | 'host' | 'limit' | 'before'; reason: string };
  /**
   * Something keeps the person from going on. The room shows it to them, in their language, with what to do; `code` is one of
   * PROTOCOL.md, of the devices (`permission_denied`, ...), or `unreachable`: the room did not answer within 15 s (your origin
   * is not in the clinic's list, an extension blocked the frame, or the network is down).
   */
  error: { code: string; message: string };
}

export interface MountOptions {
  /** The participant's link. One to `/t/<tenant>/r` is turned into the one to `/t/<tenant>/embed`. */
  url: string;
  /** Of the room; the clinic's by default. */
  language?: Language;
  /** Name of the frame for screen readers; "Téléconsultation" or "Video consultation" by default. */
  title?: string;
  /** Permissions policy features to pass on besides those that the room needs. */
  allow?: string[];
}

export interface Room {
  /** The frame, to place and to size. It fills its parent by default. */
  readonly iframe: HTMLIFrameElement;

  /** Listen to one kind of event. Returns the function that stops it. */
  on<Name extends keyof RoomEvents>(name: Name, listener: (detail: RoomEvents[Name]) => void): () => void;

  /*
   * Commands. Each promise is fulfilled when the room has carried the command out, and rejected with a `CommandError`: `not_ready`
   * (the room has not connected yet), `not_permitted` (only clinicians admit and end), `not_available` (no such device),
   * `bad_argument`, `destroyed` or `timeout`.
   */
  setMicrophone(on: boolean): Promise<void>;
  setCamera(on: boolean): Promise<void>;
  leave(): Promise<void>;
  /** Clinician: let a visitor in, by the id in `visitors`. */
  admit(participant: string): Promise<void>;
  /** Clinician: end the consultation for everybody. */
  endRoom(reason?: string): Promise<void>;
  setLanguage(language: Language): Promise<void>;

  /** Remove the frame. The person's seat is kept, the others see "reconnecting"; call `leave()` first to hang up. */
  destroy(): void;
}

export declare class CommandError extends Error {
  readonly code: string;
}

export declare const Colloque: {
  /**
   * Put the room into an element of the page.
   *
   * @throws TypeError The element is none, or the address is not a participant's link.
   */
  mount(element: Element, options: MountOptions): Room;
};
