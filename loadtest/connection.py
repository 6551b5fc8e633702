"""The way to SRTP keys of a load participant: a controlling ICE agent with one pair, then a DTLS client.

Driven by: generator.py. Sans-IO: datagrams in and out with numbers for time, like the server's own machines. It is
over once the keys are there; from then on the engine sends the checks that keep the path alive, made here beforehand.

Spec: RFC 8445 (aggressive in effect: one pair, each check nominates it), RFC 8489, RFC 5764.
"""

from __future__ import annotations

from dataclasses import dataclass

from aioice import stun

from server.media.dtls import Certificate, DtlsConnected, DtlsEndpoint, DtlsFailed
from server.media.parameters import DtlsParameters, Endpoint, IceParameters

CHECK_EVERY_S = 0.05
"""Until the first answer (RFC 8445 section 14.2)."""
CHECKS_AHEAD = 12
"""Made for the time after: half a minute, then they come round again."""
_PRIORITY = 0x7E0000FF


@dataclass(frozen=True)
class Remote:
    """What a server's description says about its end."""

    ice: IceParameters
    dtls: DtlsParameters
    endpoint: Endpoint


class Connection:
    """One transport from the first check to the keys.

    Args:
        certificate: Ours.
        local: Our ICE credentials.
        remote: The server's description.
        now: Monotonic seconds.
    """

    def __init__(self, certificate: Certificate, local: IceParameters, remote: Remote, now: float) -> None:
        self.keys: DtlsConnected | None = None
        self.failure: str | None = None
        self._local = local
        self._remote = remote
        self._dtls = DtlsEndpoint(certificate, remote.dtls.fingerprints, "client")
        self._answered = False
        self._check_at = now

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.keys is not None or self.failure is not None

    def check(self) -> bytes:
        """Return a fresh connectivity check that nominates."""
        message = stun.Message(
            stun.Method.BINDING,
            stun.Class.REQUEST,
            attributes={
                "USERNAME": f"{self._remote.ice.ufrag}:{self._local.ufrag}",
                "PRIORITY": _PRIORITY,
                "ICE-CONTROLLING": 1,
                "USE-CANDIDATE": None,
            },
        )
        message.add_message_integrity(self._remote.ice.pwd.encode())
        message.add_fingerprint()
        return bytes(message)

    def receive_datagram(self, data: bytes, now: float) -> list[bytes]:
        """Take one datagram; return what is to be sent because of it."""
        if data[0] > 3:
            self._dtls.receive_datagram(data, self._remote.endpoint, now)
            return self._advance(now)
        try:
            message = stun.parse_message(data)
        except ValueError:
            return []
        if message.message_class is stun.Class.REQUEST:
            return [self._answer(message)]
        genuine = message.check_message_integrity(self._remote.ice.pwd.encode())
        if message.message_class is stun.Class.RESPONSE and genuine and not self._answered:
            self._answered = True
            self._dtls.start(self._remote.endpoint, now)
            return self._advance(now)
        return []

    def handle_time(self, now: float) -> list[bytes]:
        """Return what is to be sent by now: a check, a flight again."""
        if not self._answered:
            if now < self._check_at:
                return []
            self._check_at = now + CHECK_EVERY_S
            return [self.check()]
        timer = self._dtls.get_timer()
        if timer is not None and now >= timer:
            self._dtls.handle_timer(now)
        return self._advance(now)

    def _answer(self, request: stun.Message) -> bytes:
        """A full agent checks us, too."""
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = self._remote.endpoint[:2]
        response.add_message_integrity(self._local.pwd.encode())
        response.add_fingerprint()
        return bytes(response)

    def _advance(self, now: float) -> list[bytes]:
        while (event := self._dtls.next_event()) is not None:
            match event:
                case DtlsConnected():
                    self.keys = event
                case DtlsFailed(reason):
                    self.failure = f"DTLS: {reason}"
        return [data for data, _ in self._dtls.datagrams_to_send(now)]
