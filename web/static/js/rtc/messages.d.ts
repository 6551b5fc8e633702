// The signalling messages, one type each. Made by `python -m server.signalling.messages`: do not edit.
// What they mean and in which order they come: server/signalling/PROTOCOL.md.

/** The first message, within 5 s. The secret opens a seat; the resume secret takes the same seat again. */
export type Hello = {
  type: "hello";
  version: number;
  tenant: string;
  instance: string;
  secret?: string | null;
  resume?: string | null;
  takeOver?: boolean;
  language?: "en" | "fr" | null;
};

/** Devices are chosen: put me in the waiting room. */
export type Ready = {
  type: "ready";
};

/** I am admitted and enter the conversation. */
export type Join = {
  type: "join";
  microphone?: "interrupted" | "missing" | "off" | "on";
  camera?: "interrupted" | "missing" | "off" | "on";
};

/** I hang up; the seat is kept, I may come back. */
export type Leave = {
  type: "leave";
};

/** Answer to `ping`, sent from the message handler: timers of hidden tabs are throttled, message events are not. */
export type Pong = {
  type: "pong";
};

/** An offer or answer for one peer. */
export type Describe = {
  type: "description";
  to: string;
  description: SessionDescription;
};

/** RTCSessionDescriptionInit; `rollback` never crosses the wire. */
export type SessionDescription = {
  type: "answer" | "offer";
  sdp: string;
};

/** A trickled ICE candidate for one peer (RFC 8838). */
export type Candidate = {
  type: "candidate";
  to: string;
  candidate: IceCandidate;
};

/** RTCIceCandidateInit; an empty `candidate` says that there are no more (RFC 8838). */
export type IceCandidate = {
  candidate: string;
  sdpMid?: string | null;
  sdpMLineIndex?: number | null;
  usernameFragment?: string | null;
};

/** Ask for new TURN credentials, before an ICE restart. */
export type RefreshIceServers = {
  type: "refreshIceServers";
};

/** What my microphone and camera do now, for the others to see. */
export type SetMedia = {
  type: "setMedia";
  microphone: "interrupted" | "missing" | "off" | "on";
  camera: "interrupted" | "missing" | "off" | "on";
};

/** The language in which sentences for people come from now on. */
export type SetLanguage = {
  type: "setLanguage";
  language: "en" | "fr";
};

/** The certificate that answers is not the one in the peer's description: no media (RFC 8827), and they are told. */
export type Distrust = {
  type: "distrust";
  to: string;
};

/** The offer of the connection to the media server: the first one, another one wanted, or a new network. */
export type RelayOffer = {
  type: "relayOffer";
  connection: string;
  description: SessionDescription;
  efficient?: Array<string>;
};

/** What of the relayed pictures is shown, and how large; what is not named stays as it was. */
export type Wishes = {
  type: "wishes";
  wishes: Array<Wish>;
};

/** How large one received picture is shown. */
export type Wish = {
  mid: string;
  rid?: "f" | "h" | "q" | null;
};

/** How the direct connection to one peer fares, every 2 s while it is there, and at once when it dies. */
export type PathReport = {
  type: "pathReport";
  to: string;
  alive: boolean;
  loss?: number;
  rttMs?: number | null;
  turn?: boolean;
  relayRttMs?: number | null;
  relayAlive?: boolean;
};

/** Everything that lives on the old path arrives here on the new one too, and is what the person sees and hears. */
export type MoveReady = {
  type: "moveReady";
  move: number;
};

/** The new path cannot be had. */
export type MoveFailed = {
  type: "moveFailed";
  move: number;
};

/** Clinician: let this visitor into the conversation. */
export type Admit = {
  type: "admit";
  participant: string;
};

/** Clinician: this visitor will not be let in. They are told why. */
export type Refuse = {
  type: "refuse";
  participant: string;
  reason?: string;
};

/** Clinician: return this participant to the waiting room. */
export type SendBack = {
  type: "sendBack";
  participant: string;
  reason?: string;
};

/** Clinician: end this participant's presence; their seat is closed. */
export type Remove = {
  type: "remove";
  participant: string;
  reason?: string;
};

/** Clinician: move this participant to another room of the same tenant, where they are expected. */
export type Transfer = {
  type: "transfer";
  participant: string;
  room: string;
};

/** Clinician: a sentence to someone in the waiting room ("10 minutes late, sorry"). */
export type Tell = {
  type: "tell";
  participant: string;
  text: string;
};

/** Clinician: end the consultation for everybody. */
export type EndRoom = {
  type: "endRoom";
  reason?: string;
};

/** Sent every `pingIntervalMs`; each end calls the socket dead after `deadAfterMs` without any message. */
export type Ping = {
  type: "ping";
};

/** Answer to `hello`: who you are and where you stand. */
export type Welcome = {
  type: "welcome";
  version: number;
  id: string;
  role: "clinician" | "guest" | "observer" | "patient";
  name: string;
  state: "admitted" | "arrived" | "joined" | "left" | "waiting";
  resume: string;
  language: "en" | "fr";
  room: string;
  pingIntervalMs: number;
  deadAfterMs: number;
  roomTopology?: "auto" | "direct-only" | "relay-only";
};

/** The seat is in use on another device: "continue here?". Say hello again with `takeOver` to take it. */
export type Occupied = {
  type: "occupied";
};

/** The last message before the server closes the socket. Do not retry with the same secret unless `retry`. */
export type Refused = {
  type: "refused";
  code: string;
  message: string;
  reason?: string;
  retry?: boolean;
};

/** A message of yours was not carried out; the connection goes on. */
export type Problem = {
  type: "problem";
  code: string;
  message: string;
  re: string;
};

/** Where you stand now, and what that gives you. */
export type StateChanged = {
  type: "state";
  state: "admitted" | "arrived" | "joined" | "left" | "waiting";
  place?: number | null;
  expected?: boolean;
  reason?: string;
  peers?: Array<Peer> | null;
  iceServers?: Array<IceServer> | null;
  path?: "direct" | "relayed";
};

/** Another participant in the conversation, as one participant is told of them. */
export type Peer = {
  id: string;
  role: "clinician" | "guest" | "observer" | "patient";
  name: string;
  connection: "online" | "reconnecting";
  microphone: "interrupted" | "missing" | "off" | "on";
  camera: "interrupted" | "missing" | "off" | "on";
  instance: string;
  polite: boolean;
  direct?: boolean;
};

/** RTCIceServer (W3C WebRTC section 4.2.4). */
export type IceServer = {
  urls: Array<string>;
  username?: string | null;
  credential?: string | null;
};

/** To clinicians: everybody who is not in the conversation. Replaces the list before. */
export type Visitors = {
  type: "visitors";
  visitors: Array<Visitor>;
};

/** Someone who is not in the conversation, as the clinicians are told of them. */
export type Visitor = {
  id: string;
  role: "clinician" | "guest" | "observer" | "patient";
  name: string;
  state: "admitted" | "arrived" | "left" | "waiting";
  connection: "online" | "reconnecting";
  sinceMs: number;
};

/** Somebody entered the conversation. */
export type PeerJoined = {
  type: "peerJoined";
  peer: Peer;
};

/** Something about a peer changed; replaces what you knew. */
export type PeerChanged = {
  type: "peerChanged";
  peer: Peer;
};

/** Somebody is no longer in the conversation. */
export type PeerLeft = {
  type: "peerLeft";
  id: string;
  why: "left" | "removed" | "sentBack" | "timeout" | "transferred";
};

/** An offer or answer from a peer. */
export type PeerDescribed = {
  type: "peerDescription";
  from: string;
  instance: string;
  description: SessionDescription;
};

/** A trickled candidate from a peer. */
export type PeerCandidate = {
  type: "peerCandidate";
  from: string;
  instance: string;
  candidate: IceCandidate;
};

/** A peer refuses our certificate: somebody stands between the two browsers. */
export type PeerDistrusts = {
  type: "peerDistrusts";
  from: string;
  instance: string;
};

/** Hold a connection to the media server, and offer now: each of these asks for one offer. */
export type RelayWanted = {
  type: "relayWanted";
  audio: number;
  video: number;
  fresh?: boolean;
};

/** The media server's answer; its candidates are in it. */
export type RelayAnswer = {
  type: "relayAnswer";
  connection: string;
  description: SessionDescription;
  sections: Array<Section>;
  startBps?: number;
};

/** Whose media one receiving section of a relayed connection carries. */
export type Section = {
  mid: string;
  participant: string;
  kind: "audio" | "video";
  source: string;
  device?: boolean;
};

/** Which encodings of the camera to send to the media server; empty: nobody watches. */
export type Encode = {
  type: "encode";
  rids: Array<"f" | "h" | "q">;
};

/** Make the other path before the old one is broken: send on both, show the new one as soon as it is there. */
export type Move = {
  type: "move";
  move: number;
  to: "direct" | "relayed";
  reason: "failure" | "headcount" | "policy" | "quality" | "recording" | "recovered" | "turn";
};

/** Everybody is ready: stop sending on the old path. */
export type Moved = {
  type: "moved";
  move: number;
  path: "direct" | "relayed";
};

/** Not everybody was ready in time: show the old path, stop sending on the new one. */
export type MoveCancelled = {
  type: "moveCancelled";
  move: number;
  path: "direct" | "relayed";
};

/** Who speaks, loudest first, as the media server hears it; only while the path is relayed. */
export type Speakers = {
  type: "speakers";
  participants: Array<string>;
};

/** Fresh servers and credentials, for `setConfiguration`. */
export type IceServers = {
  type: "iceServers";
  iceServers: Array<IceServer>;
};

/** A sentence from the clinician, while you wait. */
export type Told = {
  type: "told";
  text: string;
};

/** You are expected in another room: say hello there with this secret (a new link; same page). */
export type Transferred = {
  type: "transferred";
  secret: string;
};

/** The consultation is over for everybody. The server closes the socket after it. */
export type RoomEnded = {
  type: "roomEnded";
  by: "clinician" | "host" | "limit";
  reason?: string;
};

/** The server restarts: come back after this many milliseconds, spread at random by the server. */
export type GoingAway = {
  type: "goingAway";
  retryAfterMs: number;
};

export type ClientMessage =
  | Hello
  | Ready
  | Join
  | Leave
  | Pong
  | Describe
  | Candidate
  | RefreshIceServers
  | SetMedia
  | SetLanguage
  | Distrust
  | RelayOffer
  | Wishes
  | PathReport
  | MoveReady
  | MoveFailed
  | Admit
  | Refuse
  | SendBack
  | Remove
  | Transfer
  | Tell
  | EndRoom;

export type ServerMessage =
  | Ping
  | Welcome
  | Occupied
  | Refused
  | Problem
  | StateChanged
  | Visitors
  | PeerJoined
  | PeerChanged
  | PeerLeft
  | PeerDescribed
  | PeerCandidate
  | PeerDistrusts
  | RelayWanted
  | RelayAnswer
  | Encode
  | Move
  | Moved
  | MoveCancelled
  | Speakers
  | IceServers
  | Told
  | Transferred
  | RoomEnded
  | GoingAway;

export type Language = SetLanguage["language"];
export type Role = Peer["role"];
export type State = Welcome["state"];
export type Connection = Peer["connection"];
export type TrackState = Peer["microphone"];
export type Path = Move["to"];
export type MoveReason = Move["reason"];
export type Rid = Encode["rids"][number];
