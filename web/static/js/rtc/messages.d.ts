/** The wire protocol, as server/signalling/messages.py defines it. */

export type Role = 'clinician' | 'patient' | 'guest' | 'observer';
export type Language = 'fr' | 'en';
export type State = 'arrived' | 'waiting' | 'admitted' | 'joined' | 'left';
export type Connection = 'online' | 'reconnecting';
export type TrackState = 'on' | 'off' | 'missing' | 'interrupted';

export interface IceServer { urls: string[]; username?: string; credential?: string }
export interface SessionDescription { type: 'offer' | 'answer'; sdp: string }
export interface IceCandidate { candidate: string; sdpMid?: string | null; sdpMLineIndex?: number | null; usernameFragment?: string | null }
export interface Peer { id: string; role: Role; name: string; connection: Connection; microphone: TrackState; camera: TrackState; instance: string; polite: boolean }
export interface Visitor { id: string; role: Role; name: string; state: 'arrived' | 'waiting' | 'admitted' | 'left'; connection: Connection; sinceMs: number }

export interface Hello { type: 'hello'; version: number; tenant: string; instance: string; secret?: string | null; resume?: string | null; takeOver?: boolean; language?: Language | null }
export interface Ready { type: 'ready' }
export interface Join { type: 'join'; microphone?: TrackState; camera?: TrackState }
export interface Leave { type: 'leave' }
export interface Pong { type: 'pong' }
export interface Describe { type: 'description'; to: string; description: SessionDescription }
export interface Candidate { type: 'candidate'; to: string; candidate: IceCandidate }
export interface RefreshIceServers { type: 'refreshIceServers' }
export interface SetMedia { type: 'setMedia'; microphone: TrackState; camera: TrackState }
export interface SetLanguage { type: 'setLanguage'; language: Language }
export interface Admit { type: 'admit'; participant: string }
export interface Refuse { type: 'refuse'; participant: string; reason?: string }
export interface SendBack { type: 'sendBack'; participant: string; reason?: string }
export interface Remove { type: 'remove'; participant: string; reason?: string }
export interface Transfer { type: 'transfer'; participant: string; room: string }
export interface Tell { type: 'tell'; participant: string; text: string }
export interface EndRoom { type: 'endRoom'; reason?: string }
export type ClientMessage = Hello | Ready | Join | Leave | Pong | Describe | Candidate | RefreshIceServers | SetMedia | SetLanguage | Admit | Refuse | SendBack | Remove | Transfer | Tell | EndRoom;

export interface Ping { type: 'ping' }
export interface Welcome { type: 'welcome'; version: number; id: string; role: Role; name: string; state: State; resume: string; language: Language; room: string; pingIntervalMs: number; deadAfterMs: number; roomTopology?: 'auto' | 'direct-only' | 'relay-only' }
export interface Occupied { type: 'occupied' }
export interface Refused { type: 'refused'; code: string; message: string; reason?: string; retry?: boolean }
export interface Problem { type: 'problem'; code: string; message: string; re: string }
export interface StateChanged { type: 'state'; state: State; place?: number | null; expected?: boolean; reason?: string; peers?: Peer[] | null; iceServers?: IceServer[] | null }
export interface Visitors { type: 'visitors'; visitors: Visitor[] }
export interface PeerJoined { type: 'peerJoined'; peer: Peer }
export interface PeerChanged { type: 'peerChanged'; peer: Peer }
export interface PeerLeft { type: 'peerLeft'; id: string; why: 'left' | 'timeout' | 'removed' | 'sentBack' | 'transferred' }
export interface PeerDescribed { type: 'peerDescription'; from: string; instance: string; description: SessionDescription }
export interface PeerCandidate { type: 'peerCandidate'; from: string; instance: string; candidate: IceCandidate }
export interface IceServers { type: 'iceServers'; iceServers: IceServer[] }
export interface Told { type: 'told'; text: string }
export interface Transferred { type: 'transferred'; secret: string }
export interface RoomEnded { type: 'roomEnded'; by: 'clinician' | 'host' | 'limit'; reason?: string }
export interface GoingAway { type: 'goingAway'; retryAfterMs: number }
export type ServerMessage = Ping | Welcome | Occupied | Refused | Problem | StateChanged | Visitors | PeerJoined | PeerChanged | PeerLeft | PeerDescribed | PeerCandidate | IceServers | Told | Transferred | RoomEnded | GoingAway;
