"""ICE servers, credentials, and the texts for coturn and nginx, without a network."""

from __future__ import annotations

import base64
import hashlib
import hmac
import stat
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from server.config import Config, from_tree
from server.errors import ConfigError
from server.signalling.coturn import load_secret
from server.signalling.splitter import render_nginx
from server.signalling.turn import FORBIDDEN_PEERS, IceServerSource, render_coturn, rest_credential

NOON = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)

SPECIAL = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1
    192.31.196.1 192.52.193.1 192.88.99.1 192.168.1.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
    224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::10.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 64:ff9b::a00:1 64:ff9b:1::1 100::1 100:0:0:1::1 2001::1 2001:2::1
    2001:10::1 2001:20::1 2001:db8::1 2002:a00:1::1 2620:4f:8000::1 3fff::1 5f00::1 fc00::1 fd12::1 fe80::1 fec0::1
    ff02::1 ff0e::1
"""


def config_with(**turn: Any) -> Config:
    return from_tree({"turn": {"host": "turn.example.org", "secret": "s", **turn}})


def splitter_config(**change: dict[str, Any]) -> Config:
    tree: dict[str, dict[str, Any]] = {
        "http": {"public_url": "https://video.example.org", "trusted_proxies": ["127.0.0.1"]},
        "turn": {"host": "turn.example.org", "secret": "s", "tls_cert": "/t.crt", "tls_key": "/t.key"},
        "splitter": {"tls_cert": "/p.crt", "tls_key": "/p.key"},
    }
    for section, values in change.items():
        tree[section] |= values
    return from_tree(tree)


def test_credentials_name_the_participant_and_live_ten_minutes() -> None:
    stun, turn = IceServerSource(config_with().turn, "secret").for_participant("p1", NOON)
    assert stun.username is None
    assert turn.username == f"{int(NOON.timestamp()) + 600}:p1"
    digest = hmac.new(b"secret", turn.username.encode(), hashlib.sha1).digest()
    assert turn.credential == base64.b64encode(digest).decode()


def test_credential_vector() -> None:
    # Computed apart: printf 1433895918:506c61796572 | openssl dgst -sha1 -hmac colloque -binary | base64
    assert rest_credential(b"colloque", "506c61796572", 1433895918) == (
        "1433895918:506c61796572",
        "NtuIzm9w4r7UNFp5xCuwG1g2E6s=",
    )


def test_another_participant_or_secret_has_another_credential() -> None:
    made = {rest_credential(secret, who, at)[1] for secret in (b"a", b"b") for who in "pq" for at in (1, 2)}
    assert len(made) == 8


def test_the_servers_are_offered_the_cheapest_way_first() -> None:
    stun, turn = IceServerSource(config_with().turn, "s").for_participant("p", NOON)
    assert stun.urls == ["stun:turn.example.org:3478"]
    assert turn.urls == [
        "turn:turn.example.org:3478?transport=udp",
        "turn:turn.example.org:3478?transport=tcp",
        "turns:turn.example.org:443?transport=tcp",
    ]


@pytest.mark.parametrize(
    ("settings", "offered"),
    [
        ({"managed": True}, False),
        ({"managed": True, "tls_cert": "/c", "tls_key": "/k"}, True),
        ({"public_tls_port": 0}, False),
    ],
)
def test_tls_is_offered_only_where_somebody_answers(settings: dict[str, Any], offered: bool) -> None:
    _, turn = IceServerSource(config_with(**settings).turn, "s").for_participant("p", NOON)
    assert any(url.startswith("turns:") for url in turn.urls) is offered


def test_an_ipv6_host_is_bracketed() -> None:
    stun, _ = IceServerSource(config_with(host="2a00::5").turn, "s").for_participant("p", NOON)
    assert stun.urls == ["stun:[2a00::5]:3478"]


def test_no_turn_host_means_no_servers() -> None:
    assert IceServerSource(Config().turn, "s").for_participant("p", NOON) == []


@pytest.mark.parametrize("address", SPECIAL.split())
def test_special_ranges_are_denied(address: str) -> None:
    assert any(ip_address(address) in network for network in FORBIDDEN_PEERS)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "45.80.0.10", "99.255.255.255", "172.32.0.1", "2a00::1", "2606:4700::1"]
)
def test_public_addresses_are_not_denied(address: str) -> None:
    assert not any(ip_address(address) in network for network in FORBIDDEN_PEERS)


def test_what_python_knows_as_not_global_is_denied() -> None:
    """One address of each /16, against the table of special ranges in the standard library."""
    for block in range(0, 2**32, 2**16):
        address = ip_address(block)
        assert address.is_global or any(address in network for network in FORBIDDEN_PEERS), address


def test_no_range_begins_with_zero_of_ipv6() -> None:
    """coturn takes `::` at the beginning of a range for "any address", of IPv4 too."""
    assert "denied-peer-ip=::-" not in render_coturn(config_with(), "s")
    assert "denied-peer-ip=::1-1fff:" in render_coturn(config_with(), "s")


def test_only_exact_addresses_are_allowed() -> None:
    text = render_coturn(
        config_with(
            listen_addresses=["10.0.0.5"], external_address="45.80.0.10", media_addresses=["10.0.0.6", "fd00::6"]
        ),
        "s",
    )
    allowed = [line.partition("=")[2] for line in text.splitlines() if line.startswith("allowed-peer-ip")]
    assert allowed == ["10.0.0.5", "45.80.0.10", "10.0.0.6", "fd00::6"]
    assert "external-ip=45.80.0.10/10.0.0.5" in text


@pytest.mark.parametrize("bad", ["10.0.0.0/8", "10.0.0.1:80", "sfu.example.org", "10.0.0.1-10.0.0.9"])
def test_an_allowed_range_or_name_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="exact IP addresses"):
        render_coturn(config_with(media_addresses=[bad]), "s")


def test_an_external_address_needs_the_inner_one() -> None:
    with pytest.raises(ConfigError, match="listen_addresses"):
        render_coturn(config_with(external_address="45.80.0.10"), "s")


def test_quotas_that_could_fill_the_ports_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_allocations"):
        render_coturn(config_with(relay_min_port=50000, relay_max_port=51000, max_allocations=501), "s")


def test_without_a_certificate_there_is_no_tls_and_never_dtls() -> None:
    assert "\nno-tls\n" in render_coturn(config_with(), "s")
    with_tls = render_coturn(config_with(tls_cert="/c", tls_key="/k"), "s")
    assert "\nno-tls\n" not in with_tls
    assert "\ncert=/c\npkey=/k\nno-tlsv1\nno-tlsv1_1\n" in with_tls
    for text in (render_coturn(config_with(), "s"), with_tls):
        assert "\nno-dtls\n" in text
        assert "verbose" not in text.lower()


def test_the_splitter_sends_turn_by_name_and_the_rest_to_the_pages() -> None:
    text = render_nginx(splitter_config())
    assert "turn.example.org 127.0.0.2:8443;" in text
    assert "default 127.0.0.1:8443;" in text
    assert "server_name video.example.org;" in text
    assert "$$" not in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"turn": {"host": "45.80.0.10"}}, "two names"),
        ({"turn": {"host": "video.example.org"}}, "two names"),
        ({"http": {"public_url": ""}}, "two names"),
        ({"http": {"public_url": "https://45.80.0.10"}}, "two names"),
        ({"http": {"trusted_proxies": []}}, "trusted_proxies"),
        ({"http": {"tls_cert": "/c", "tls_key": "/k"}}, "http.tls_cert"),
        ({"splitter": {"tls_key": None}}, "splitter.tls_cert"),
        ({"turn": {"tls_cert": None, "tls_key": None}}, "turn.tls_cert"),
    ],
)
def test_a_splitter_that_could_not_work_is_refused(change: dict[str, dict[str, Any]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        render_nginx(splitter_config(**change))


def test_a_secret_is_made_once_and_kept_privately(tmp_path: Path) -> None:
    config = from_tree({"data_dir": str(tmp_path / "data"), "turn": {"host": "turn.example.org", "managed": True}})
    secret = load_secret(config)
    assert len(secret) >= 40
    assert load_secret(config) == secret
    assert stat.S_IMODE((tmp_path / "data" / "turn-secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_configured_secret_is_used_and_nothing_written(tmp_path: Path) -> None:
    config = from_tree({"data_dir": str(tmp_path / "data"), "turn": {"host": "t", "secret": "ours"}})
    assert load_secret(config) == "ours"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("media", "allowed"),
    [
        ({"addresses": ["198.51.100.4"]}, "198.51.100.4"),
        ({"bind": ["10.0.0.8"]}, "10.0.0.8"),
        ({"bind": ["127.0.0.1"]}, ""),
        ({"addresses": ["198.51.100.4"], "enabled": False}, ""),
        ({}, ""),
    ],
)
def test_the_media_server_may_be_relayed_to_but_never_loopback(media, allowed):
    text = render_coturn(from_tree({"media": media, "turn": {"host": "turn.example", "secret": "s"}}), "s")
    assert [line.partition("=")[2] for line in text.splitlines() if line.startswith("allowed-peer-ip")] == (
        [allowed] if allowed else []
    )
