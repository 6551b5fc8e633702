"""Settings: where they come from, which wins, and what is said about one that cannot work."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from server import config
from server.config import Config, from_tree, load, public_tree
from server.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "colloque.toml"
    path.write_text(text)
    return path


def test_defaults_need_nothing():
    settings = load(None, {})
    assert settings == Config()
    assert settings.public_origin == "http://localhost:8080"
    assert settings.store_url == "sqlite+aiosqlite:///colloque-data/colloque.db"


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path):
    path = write(tmp_path, 'data_dir = "/srv/colloque"\n[http]\nport = 1\nhost = "10.0.0.1"\n[turn]\nhost = ""\n')
    settings = load(path, {"COLLOQUE_HTTP__PORT": "2", "COLLOQUE_LOG__LEVEL": "debug", "PATH": "/bin", "HOME": "x"})
    assert (settings.http.host, settings.http.port) == ("10.0.0.1", 2)
    assert settings.log.level == "debug"
    assert settings.data_dir == Path("/srv/colloque")
    assert settings.signalling == Config().signalling


def test_the_environment_may_name_the_file(tmp_path: Path):
    path = write(tmp_path, "[http]\nport = 1\n")
    assert load(None, {"COLLOQUE_CONFIG": str(path)}).http.port == 1
    assert load(None, {"COLLOQUE_CONFIG": ""}).http.port == 8080


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HTTP__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,", ("127.0.0.1", "10.0.0.0/8")),
        ("HTTP__TRUSTED_PROXIES", "", ()),
        ("HTTP__HEADER_TIMEOUT_S", "2.5", 2.5),
        ("HTTP__HEADER_TIMEOUT_S", "2", 2.0),
        ("TURN__MANAGED", "true", True),
        ("TURN__MANAGED", "0", False),
        ("TURN__TLS_CERT", "/etc/turn.pem", Path("/etc/turn.pem")),
    ],
)
def test_the_environment_has_types_too(name: str, text: str, value: object):
    variables = {"COLLOQUE_" + name: text, "COLLOQUE_TURN__SECRET": "s", "COLLOQUE_TURN__TLS_KEY": "/etc/turn.key"}
    if "TLS" not in name:
        del variables["COLLOQUE_TURN__TLS_KEY"]
    settings = load(None, variables)
    section, leaf = name.lower().split("__")
    assert getattr(getattr(settings, section), leaf) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[http]\nprot = 1", "`http.prot` is not a setting; here there are: header_timeout_s, host"),
        ("[htpp]\nport = 1", "`htpp` is not a setting; here there are: data_dir, http"),
        ("http = 1", "`http` is a section"),
        ('[http]\nport = "many"', "`http.port`"),
        ("[http]\nport = 70000", "`http.port`"),
        ("[http]\nport = -1", "`http.port`"),
        ("[http]\nheader_timeout_s = -1", "`http.header_timeout_s`"),
        ("[http]\nheader_timeout_s = inf", "`http.header_timeout_s`"),
        ("[http]\nheader_timeout_s = nan", "`http.header_timeout_s`"),
        ("[http]\nmax_connections_per_address = 0", "`http.max_connections_per_address`"),
        ('[http]\ntls_cert = "x"', "go together"),
        ('[http]\npublic_url = "video.example.org"', "`http.public_url`"),
        ('[http]\npublic_url = "https://video.example.org/rooms"', "`http.public_url`"),
        ('[http]\npublic_url = "https://user@video.example.org"', "`http.public_url`"),
        ('[http]\npublic_url = "https://"', "`http.public_url`"),
        ('[http]\ntrusted_proxies = ["nginx"]', "`http.trusted_proxies`"),
        ('[http]\ntrusted_proxies = "10.0.0.1"', "`http.trusted_proxies`"),
        ("[signalling]\nping_interval_s = 3.0", "two pings"),
        ('[log]\nlevel = "loud"', "`log.level`"),
        ("[turn]\nrelay_min_port = 50000\nrelay_max_port = 49999", "`turn.relay_min_port`"),
        ("[turn]\nport = 0", "`turn.port`"),
        ('[turn]\nhost = "turn.example.org"', "`turn.secret`"),
        ("[http", "not TOML"),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, text: str, why: str):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {})
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"COLLOQUE_HTTP__PROT": "1"}, "`http.prot` is not a setting"),
        ({"COLLOQUE_PORT": "1"}, "`port` is not a setting"),
        ({"COLLOQUE_HTTP": "1"}, "`http` is a section"),
        ({"COLLOQUE_HTTP": "1", "COLLOQUE_HTTP__PORT": "1"}, "COLLOQUE_HTTP__PORT"),
        ({"COLLOQUE_HTTP__PORT__X": "1"}, "`http.port`"),
        ({"COLLOQUE_CONFIG": "/nowhere/colloque.toml"}, "No such file"),
    ],
)
def test_variables_that_cannot_work_are_named(variables: dict[str, str], why: str):
    with pytest.raises(ConfigError) as caught:
        load(None, variables)
    assert why in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load(path, {})


@pytest.mark.parametrize(
    ("http", "origin"),
    [
        ({"host": "0.0.0.0", "port": 80, "public_url": "https://video.example.org/"}, "https://video.example.org"),
        ({"public_url": "https://Video.Example.org:443"}, "https://video.example.org"),
        ({"public_url": "http://video.example.org:80"}, "http://video.example.org"),
        ({"public_url": "https://video.example.org:80"}, "https://video.example.org:80"),
        ({"host": "192.168.1.5", "port": 8443, "tls_cert": "c", "tls_key": "k"}, "https://192.168.1.5:8443"),
        ({"host": "::1"}, "http://localhost:8080"),
        ({"host": "2001:db8::1"}, "http://[2001:db8::1]:8080"),
    ],
)
def test_where_links_lead(http: dict[str, Any], origin: str):
    assert from_tree({"http": http}).public_origin == origin


def test_secrets_are_not_shown():
    tree = {
        "store": {"url": "postgresql+asyncpg://somebody:canary@db/colloque"},
        "turn": {"secret": "canary"},
        "http": {"metrics_token": "canary"},
    }
    shown = public_tree(from_tree(tree))
    assert "canary" not in str(shown)
    assert shown["turn"]["secret"] == "(set)"
    assert shown["store"]["url"].startswith("postgresql+asyncpg:")
    assert public_tree(from_tree({"store": {"url": "postgresql://db/x?password=canary"}}))["store"]["url"].endswith(
        "(set)"
    )
    assert public_tree(from_tree({"store": {"url": "sqlite:///a.db"}}))["store"]["url"] == "sqlite:///a.db"


def test_what_is_shown_can_be_read_again():
    settings = from_tree({
        "data_dir": "/srv/été \"x\"",
        "http": {"trusted_proxies": ["127.0.0.1"], "tls_cert": "c", "tls_key": "k", "header_timeout_s": 1.5},
        "turn": {"managed": True},
    })  # fmt: skip
    assert from_tree(tomllib.loads(config.toml(public_tree(settings)))) == settings


@pytest.mark.parametrize(
    ("tree", "bind"),
    [
        ({}, ()),
        ({"http": {"host": "localhost"}}, ()),
        ({"http": {"host": "10.0.0.7"}}, ("10.0.0.7",)),
        ({"http": {"host": "0.0.0.0", "public_url": "https://video.example.org"}}, ()),
        ({"http": {"public_url": "https://video.example.org"}}, ()),
        ({"http": {"host": "10.0.0.7"}, "media": {"bind": ["10.0.0.8", "fd00::8"]}}, ("10.0.0.8", "fd00::8")),
    ],
)
def test_media_listens_where_the_pages_are_unless_that_is_loopback(tree: dict[str, Any], bind: tuple[str, ...]):
    assert from_tree(tree).media_in_force.bind == bind


def test_media_settings_that_cannot_work():
    assert from_tree({"media": {"port": 0, "workers": 0}}).media.enabled
    for wrong in ({"addresses": ["video.example.org"]}, {"bind": ["10.0.0.0/8"]}, {"port": 70_000}, {"workers": -1}):
        with pytest.raises(ConfigError, match="media"):
            from_tree({"media": wrong})
