"""Settings: one tree of frozen dataclasses, read once from TOML and the environment. [IO]

Order, the later wins: the defaults below, the TOML file (`--config FILE` or `COLLOQUE_CONFIG`), the environment
(`COLLOQUE_HTTP__PORT=8443` sets `http.port`; lists are separated by commas). No other module reads the environment.
`colloque config show` prints the result with secrets hidden, `colloque config check` only validates it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from server.errors import ConfigError

_ENV_PREFIX = "COLLOQUE_"
_MAY_BE_ZERO = {"http.port", "turn.public_tls_port", "media.port", "media.workers"}


@dataclass(frozen=True)
class HttpConfig:
    """Where the server listens and how much it takes from a stranger."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default: nothing is exposed by accident."""
    port: int = 8080
    """TCP port; 0 lets the system choose (tests)."""
    public_url: str = ""
    """Origin of the links, `https://video.example.org`. Empty: `http(s)://host:port`."""
    tls_cert: Path | None = None
    """PEM certificate chain. With `tls_key`, the server speaks HTTPS itself."""
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For is believed. Empty: nobody's."""
    header_timeout_s: float = 10.0
    """Half-sent request heads and idle keep-alive connections are closed after this (slowloris)."""
    max_connections_per_address: int = 200
    """A clinic behind one NAT has dozens of people with two sockets each; a flood has thousands."""
    max_joins_per_address_per_minute: int = 120
    """Hellos from one address: a clinic opening at 9:00 fits, guessing 128-bit secrets does not need help."""
    metrics_token: str = field(default="", metadata={"secret": True})
    """Bearer token that Prometheus sends for /metrics. Empty: /metrics answers loopback only, and nobody at all once
    `public_url` is set, because behind a proxy on the same machine everybody comes from loopback."""


@dataclass(frozen=True)
class StoreConfig:
    """Where durable facts live."""

    url: str = ""
    """SQLAlchemy URL, `postgresql+asyncpg://...` or `sqlite+aiosqlite:///...`. Empty: a SQLite file in `data_dir`."""


@dataclass(frozen=True)
class SignallingConfig:
    """Timings and bounds of one participant's WebSocket."""

    hello_timeout_s: float = 5.0
    """First message, from the opening of the socket."""
    ping_interval_s: float = 1.5
    """Two pings fit in `dead_after_s`, with one to lose."""
    dead_after_s: float = 4.0
    """No message for this long: the other end is gone. Long enough for a handover to 4G, short enough to be told."""
    left_after_s: float = 60.0
    """Then the others see "left" instead of "reconnecting". The seat itself lasts until the room ends."""
    max_queued_bytes: int = 262_144
    """Unsent bytes per connection before a slow reader is cut off: four of the largest messages."""
    messages_per_second: float = 50.0
    """Sustained, per connection. Trickle ICE with 4 peers is a burst of about 100, then silence."""
    message_burst: int = 400
    """Above `messages_per_second`, for joins and ICE restarts."""
    max_in_conversation: int = 4
    """People in one direct conversation: each pair has its own connection, which a phone carries up to three times."""


@dataclass(frozen=True)
class TurnConfig:
    """STUN and TURN for the browsers, from coturn: ours to run, or the clinic's own."""

    host: str = ""
    """Name or address that browsers use, `turn.example.org`. Empty: no TURN, and only networks that need none work."""
    secret: str = field(default="", metadata={"secret": True})
    """Shared with coturn (`static-auth-secret`). Empty with `managed`: one is made and kept in `data_dir`."""
    managed: bool = False
    """Run coturn as a child of the server with the configuration of `colloque turn config`."""
    listen_addresses: tuple[str, ...] = ()
    """For coturn: its addresses. Empty: all of the machine."""
    external_address: str = ""
    """For coturn behind a one-to-one NAT: the address the world sees."""
    port: int = 3478
    """UDP and TCP."""
    tls_port: int = 5349
    """Where coturn itself listens for TLS; behind the SNI splitter it is not the port that browsers use."""
    public_tls_port: int = 443
    """What browsers are told: the only port that every clinic lets out. 0: the clinic's coturn has no TLS."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    relay_min_port: int = 49152
    relay_max_port: int = 65535
    credential_lifetime_s: int = 600
    """A stolen credential is worth ten minutes (SECURITY.md row 10)."""
    max_allocations_per_user: int = 24
    """coturn `user-quota`. A browser allocates one per URL (3), interface and peer; those of a network it left stay
    for 3 minutes. Two people can change networks 7 times in that time, four people twice."""
    max_allocations: int = 1200
    """coturn `total-quota`."""
    media_addresses: tuple[str, ...] = ()
    """Exact addresses of our media server, the only private ones that coturn may relay to. Empty: those that
    `media.addresses` or `media.bind` name."""


@dataclass(frozen=True)
class MediaConfig:
    """The media server, for conversations that do not go directly from browser to browser."""

    enabled: bool = True
    """Off: every conversation is direct, whatever its room's topology says."""
    addresses: tuple[str, ...] = ()
    """Where browsers reach it, IPv4 and IPv6: behind a one-to-one NAT, the addresses that the world sees. Empty: those
    of this machine that it listens on."""
    bind: tuple[str, ...] = ()
    """Where it listens. Empty: where `http.host` does; with a loopback `http.host` on all of the machine, because no
    proxy carries UDP, and because Firefox sends no media to loopback, not even from the same machine."""
    port: int = 10000
    """UDP and TCP, of the first worker; each further one takes the next. 0: the system chooses (tests)."""
    workers: int = 0
    """Threads that forward packets, each with its own port. 0: one per core but one, which signalling keeps."""
    tcp: bool = True
    """Take media over TCP too, on the same port number (ICE-TCP), from networks that block UDP."""
    max_in_conversation: int = 12
    """People in one relayed conversation: each sends once, and receives everybody else."""


@dataclass(frozen=True)
class SplitterConfig:
    """One address, one port: nginx in front of the server and of coturn, with the text of `colloque turn nginx`."""

    addresses: tuple[str, ...] = ()
    """Where nginx listens. Empty: all of the machine."""
    port: int = 443
    inner_port: int = 8443
    """On loopback, between the two halves of nginx: the one that reads names and the one that serves the pages."""
    tls_cert: Path | None = None
    """For the pages; coturn has its own in `[turn]`, which may be the same file."""
    tls_key: Path | None = None


@dataclass(frozen=True)
class LogConfig:
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    data_dir: Path = Path("colloque-data")
    """Keys, the SQLite file, coturn's configuration. Created with mode 0700."""
    http: HttpConfig = field(default_factory=HttpConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    signalling: SignallingConfig = field(default_factory=SignallingConfig)
    turn: TurnConfig = field(default_factory=TurnConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    splitter: SplitterConfig = field(default_factory=SplitterConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def store_url(self) -> str:
        """The database URL in force."""
        return self.store.url or f"sqlite+aiosqlite:///{self.data_dir / 'colloque.db'}"

    @property
    def media_in_force(self) -> MediaConfig:
        """The `[media]` settings with `bind` filled in; still empty: all of the machine."""
        host = self.http.host
        if self.media.bind or not _is_exact(host) or ipaddress.ip_address(host).is_loopback:
            return self.media
        return (
            self.media if ipaddress.ip_address(host).is_unspecified else dataclasses.replace(self.media, bind=(host,))
        )

    @property
    def public_origin(self) -> str:
        """Origin of the links, without a trailing slash."""
        if self.http.public_url:
            # As browsers write it in Origin (RFC 6454 section 6.1): in lower case, without the scheme's own port.
            scheme, _, host = self.http.public_url.rstrip("/").lower().partition("://")
            return f"{scheme}://{host.removesuffix(':443' if scheme == 'https' else ':80')}"
        scheme = "https" if self.http.tls_cert else "http"
        host = "localhost" if self.http.host in ("127.0.0.1", "::1") else self.http.host
        host = f"[{host}]" if ":" in host else host
        return f"{scheme}://{host}:{self.http.port}"


def _is_exact(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Read the settings.

    Args:
        path: The TOML file; None for the one named by `COLLOQUE_CONFIG`, if any.
        environment: Stands in for `os.environ` in tests.

    Raises:
        ConfigError: A file that cannot be read, an unknown name, a wrong type or a contradiction; says which and where.
    """
    environment = os.environ if environment is None else environment
    if path is None and environment.get(_ENV_PREFIX + "CONFIG"):
        path = Path(environment[_ENV_PREFIX + "CONFIG"])
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None
    _overlay(tree, environment)
    return from_tree(tree)


def from_tree(tree: Mapping[str, Any]) -> Config:
    """Validate a tree of plain values, as TOML gives it.

    Raises:
        ConfigError: As `load`.
    """
    _refuse_unknown(tree, Config(), "")
    try:
        config = msgspec.convert(tree, Config, strict=False, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`")) from None
    _check(config)
    return config


def public_tree(config: Config) -> dict[str, Any]:
    """Return the settings as plain values for showing: secrets are replaced by whether they are set."""
    tree: dict[str, Any] = msgspec.to_builtins(dataclasses.asdict(config), enc_hook=str)
    for name, section in tree.items():
        if isinstance(section, dict):
            for setting in dataclasses.fields(getattr(config, name)):
                if setting.metadata.get("secret") and section[setting.name]:
                    section[setting.name] = "(set)"
    if config.store.url and not config.store.url.startswith("sqlite"):
        tree["store"]["url"] = config.store.url.partition(":")[0] + ":(set)"
    return tree


def toml(tree: Mapping[str, Any]) -> str:
    """Write a tree of settings as TOML; what has no value is a comment."""
    plain = {name: value for name, value in tree.items() if not isinstance(value, Mapping)}
    sections = {name: value for name, value in tree.items() if isinstance(value, Mapping)}
    lines = [f"# {name} =" if value is None else f"{name} = {_toml_value(value)}" for name, value in plain.items()]
    return "\n".join([*lines, *(f"\n[{name}]\n{toml(section)}" for name, section in sections.items())])


def _toml_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # strings, numbers, booleans and arrays of them are the same in TOML


def _overlay(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Lay `COLLOQUE_A__B=value` over `tree["a"]["b"]`."""
    for name, value in sorted(environment.items()):
        if not name.startswith(_ENV_PREFIX) or name == _ENV_PREFIX + "CONFIG":
            continue
        *sections, leaf = name.removeprefix(_ENV_PREFIX).lower().split("__")
        node, default = tree, Config()
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{name}: `{section}` is a value, or given as one, and cannot hold another")
            default = getattr(default, section, default)
        is_list = isinstance(getattr(default, leaf, None), tuple)
        node[leaf] = [part.strip() for part in value.split(",") if part.strip()] if is_list else value


def _refuse_unknown(tree: Mapping[str, Any], defaults: Any, place: str) -> None:
    """Refuse a name that is not a field of the dataclass `defaults`, and a value where a section belongs."""
    known = {setting.name for setting in dataclasses.fields(defaults)}
    for name, value in tree.items():
        if name not in known:
            raise ConfigError(f"`{place}{name}` is not a setting; here there are: {', '.join(sorted(known))}")
        child = getattr(defaults, name)
        if dataclasses.is_dataclass(child):
            if not isinstance(value, Mapping):
                raise ConfigError(f"`{place}{name}` is a section, write [{place}{name}]")
            _refuse_unknown(value, child, f"{place}{name}.")


def _check(config: Config) -> None:
    """Refuse what cannot work, with what to do about it."""
    http, signalling, turn = config.http, config.signalling, config.turn
    if (http.tls_cert is None) != (http.tls_key is None):
        raise ConfigError("`http.tls_cert` and `http.tls_key` go together: set both, or none for plain HTTP")
    _check_numbers(config, "")
    for name in ("addresses", "bind"):
        if not all(map(_is_exact, getattr(config.media, name))):
            raise ConfigError(f"`media.{name}` are exact IP addresses, without port or range")
    for proxy in http.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise ConfigError(f"`http.trusted_proxies`: {proxy} is not an address or a network") from None
    if http.public_url and not re.fullmatch(r"https?://[^/?#@\s]+/?", http.public_url):
        raise ConfigError("`http.public_url` is an origin such as https://video.example.org, without a path")
    if signalling.dead_after_s < 2 * signalling.ping_interval_s:
        raise ConfigError("`signalling.dead_after_s` must leave room for two pings: at least twice `ping_interval_s`")
    if turn.relay_min_port > turn.relay_max_port:
        raise ConfigError("`turn.relay_min_port` is above `turn.relay_max_port`")
    if turn.host and not turn.secret and not turn.managed:
        raise ConfigError(
            "`turn.secret` is missing: the same value as coturn's static-auth-secret, or `turn.managed = true`"
        )


def _check_numbers(settings: Any, place: str) -> None:
    """Refuse ports that are none, and times and bounds that are not above zero."""
    for setting in dataclasses.fields(settings):
        name, value = place + setting.name, getattr(settings, setting.name)
        if dataclasses.is_dataclass(value):
            _check_numbers(value, f"{name}.")
        elif name.endswith("port"):
            if not (name not in _MAY_BE_ZERO) <= value <= 65_535:
                raise ConfigError(f"`{name}` is a port, at most 65535")
        elif isinstance(value, int | float) and not _in_bounds(name, value):
            raise ConfigError(f"`{name}` is above zero, and finite")


def _in_bounds(name: str, value: float) -> bool:
    return value is False or 0 < value < math.inf or (value == 0 and name in _MAY_BE_ZERO)
