"""ICE servers with short-lived credentials, and the text of coturn's configuration. Sans-IO.

`websocket.py` asks for the servers of one participant at admission and before each ICE restart; `coturn.py` and
`colloque turn config` ask for the text. Credentials follow the "REST API for access to TURN services"
(draft-uberti-behave-turn-rest-00), which coturn calls `use-auth-secret`: the user name says until when it is good and
for whom, the password is its HMAC under a secret that only coturn and we know, so that nothing needs to be told to
coturn. README.md beside this file says how to run it and what it does not prevent.
"""

from __future__ import annotations

import base64
import hmac
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from server.config import Config, TurnConfig
from server.errors import ConfigError
from server.signalling.messages import IceServer

REALM = "colloque"
"""Sent in every 401 before authentication: short, so that a spoofed request is amplified less (SECURITY.md row 11)."""

ALLOCATION_LIFETIME_S = 180
"""Between refreshes. RFC 8656 proposes 600, but then three changes of network in ten minutes use up a quota."""

FORBIDDEN_PEERS = tuple(
    map(
        ip_network,
        (
            # IANA IPv4 Special-Purpose Address Registry, with multicast (224/4) and everything after it.
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
            # IPv6: all that is not global unicast (2000::/3): unspecified, loopback, mapped (::ffff:0:0/96), NAT64
            # (64:ff9b::/96, 64:ff9b:1::/48), discard (100::/64), unique local, link local, multicast, ...
            "::/3",
            "4000::/2",
            "8000::/1",
            # IANA IPv6 Special-Purpose Address Registry, inside 2000::/3: protocol assignments with Teredo and ORCHID,
            # documentation, 6to4 (which wraps any IPv4 address), AS112, documentation again.
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
"""Where no relayed packet goes, unless to an exact address that `render_coturn` allows."""


class IceServerSource:
    """Make the ICE servers of each participant.

    Args:
        config: The `[turn]` settings; an empty `host` means that there are none.
        secret: Shared with coturn.
    """

    def __init__(self, config: TurnConfig, secret: str) -> None:
        self._lifetime_s = config.credential_lifetime_s
        self._secret = secret.encode()
        self._stun, self._turn = _urls(config)

    def for_participant(self, participant_id: str, wall: datetime) -> list[IceServer]:
        """Return the servers for one participant, good for `credential_lifetime_s` from `wall`.

        The credentials name the participant: coturn counts a participant's allocations over all of their credentials.
        """
        if not self._turn:
            return []
        username, credential = rest_credential(self._secret, participant_id, int(wall.timestamp()) + self._lifetime_s)
        return [
            IceServer(urls=self._stun),
            IceServer(urls=self._turn, username=username, credential=credential),
        ]


def rest_credential(secret: bytes, participant_id: str, expires_at: int) -> tuple[str, str]:
    """Return user name and password for TURN, good until `expires_at` in Unix seconds.

    Spec: draft-uberti-behave-turn-rest-00 section 2.2; SHA-1 because coturn and the draft know no other, and HMAC-SHA-1
    is not touched by SHA-1's collisions.
    """
    username = f"{expires_at}:{participant_id}"
    return username, base64.b64encode(hmac.digest(secret, username.encode(), "sha1")).decode()


def _urls(config: TurnConfig) -> tuple[list[str], list[str]]:
    """Return STUN and TURN URLs (RFC 7064, RFC 7065), the cheapest way first."""
    if not config.host:
        return [], []
    host = f"[{config.host}]" if ":" in config.host else config.host
    turn = [f"turn:{host}:{config.port}?transport={transport}" for transport in ("udp", "tcp")]
    if _offers_tls(config):
        turn.append(f"turns:{host}:{config.public_tls_port}?transport=tcp")
    return [f"stun:{host}:{config.port}"], turn


def _offers_tls(config: TurnConfig) -> bool:
    """Whether browsers can reach coturn by TLS: with our certificate; the clinic's own coturn has one of its own."""
    return bool(config.public_tls_port) and (config.tls_cert is not None or not config.managed)


def render_coturn(config: Config, secret: str) -> str:
    """Return coturn's configuration: it relays between participants and to our media server, and nowhere else.

    The text holds the secret: keep it in a file of mode 0600. Every line is there for a row of SECURITY.md (8 to 11,
    22), and tests/interop/test_coturn.py holds the rows against Debian's coturn 4.6.1.

    Raises:
        ConfigError: A coturn behind a one-to-one NAT whose own address is not told, or quotas that do not protect.
    """
    turn = config.turn
    if 2 * turn.max_allocations > turn.relay_max_port - turn.relay_min_port + 1:
        # Two: EVEN-PORT may reserve the next port beside its own (RFC 8656 section 18.6).
        raise ConfigError(
            "`turn.max_allocations` is more than half of the ports from `relay_min_port` to `relay_max_port`"
        )
    if turn.external_address and len(turn.listen_addresses) != 1:
        raise ConfigError(
            "`turn.external_address` needs the one address of coturn behind it in `turn.listen_addresses`"
        )
    lines = [
        "# Written by `colloque turn config`; change the settings instead. Holds a secret: mode 0600.",
        "",
        "# Who may: short-lived credentials that name the participant.",
        "use-auth-secret",
        f"static-auth-secret={secret}",
        f"realm={REALM}",
        "stale-nonce=600",
        "no-auth-pings",
        "no-dynamic-realms",
        "no-dynamic-ip-list",
        "",
        "# Where it listens.",
        *(f"listening-ip={address}" for address in turn.listen_addresses),
        *(f"relay-ip={address}" for address in turn.listen_addresses),
        *([f"external-ip={turn.external_address}/{turn.listen_addresses[0]}"] if turn.external_address else []),
        f"listening-port={turn.port}",
        f"min-port={turn.relay_min_port}",
        f"max-port={turn.relay_max_port}",
        *_tls_lines(turn),
        "",
        "# How much: per participant, over all of their credentials, and for everybody.",
        f"user-quota={turn.max_allocations_per_user}",
        f"total-quota={turn.max_allocations}",
        "# An allocation that its browser lost, with the network it left, counts until this many seconds are over.",
        f"max-allocate-lifetime={ALLOCATION_LIFETIME_S}",
        "",
        "# What it does not do.",
        "no-tcp-relay",
        "no-multicast-peers",
        "no-cli",
        "no-rfc5780",
        "no-stun-backward-compatibility",
        "response-origin-only-with-rfc5780",
        "no-software-attribute",
        "",
        "# Nothing about anybody on disk or in a journal: even its errors hold user names and addresses. Ours to",
        "# supervise, it writes them to us, and we count them. It wants a database; an empty one in memory does.",
        *(["log-file=stdout"] if turn.managed else ["log-file=/dev/null", "no-stdout-log"]),
        "simple-log",
        "pidfile=/dev/null",
        "userdb=:memory:",
        "",
        "# Where it relays to: exact addresses of its own and of the media server, then no special or private range.",
        *(f"allowed-peer-ip={address}" for address in _own_addresses(config)),
        *(f"denied-peer-ip={_first(network)}-{network[-1]}" for network in FORBIDDEN_PEERS),
    ]
    return "\n".join(lines) + "\n"


def _first(network: IPv4Network | IPv6Network) -> IPv4Address | IPv6Address:
    """Return where a denied range begins for coturn.

    One that began with `::` would deny all of IPv4 too (coturn 4.6.1 takes it for "any"); `::` itself is denied anyway.
    """
    return network[1] if network[0] == IPv6Address("::") else network[0]


def _tls_lines(turn: TurnConfig) -> list[str]:
    """TLS 1.2 or later, with forward secrecy. No DTLS: no browser speaks it to TURN, and its answers are long."""
    if turn.tls_cert is None or turn.tls_key is None:
        return ["no-tls", "no-dtls"]
    return [
        f"tls-listening-port={turn.tls_port}",
        f"cert={turn.tls_cert}",
        f"pkey={turn.tls_key}",
        "no-tlsv1",
        "no-tlsv1_1",
        'cipher-list="ECDHE+AESGCM:ECDHE+CHACHA20"',
        "no-dtls",
    ]


def _own_addresses(config: Config) -> list[IPv4Address | IPv6Address]:
    """Return the exact addresses that may be relayed to although their range may be private: coturn's, and the SFU's.

    Loopback is never among them unless it is named on purpose: much answers there that trusts its own machine.

    Raises:
        ConfigError: Something that is not one exact address.
    """
    turn, media = config.turn, config.media_in_force
    known = (media.addresses or media.bind) if media.enabled else ()
    found = turn.media_addresses or tuple(text for text in known if not ip_address(text).is_loopback)
    try:
        named = (*turn.listen_addresses, turn.external_address, *found)
        return list(dict.fromkeys(ip_address(text) for text in named if text))
    except ValueError as error:
        raise ConfigError(f"`turn` addresses are exact IP addresses, without port or range: {error}") from None
