"""The shipped nginx configuration with the real nginx: pages and TURN on one address and one port."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.config import Config, from_tree
from server.ids import new_id
from server.signalling.splitter import render_nginx
from server.signalling.turn import render_coturn, rest_credential
from tests.interop.authority import Authority
from tests.interop.natlab import LAB_TIMEOUT_S, PUBLIC_ADDRESS, Lab, wait_until
from tests.interop.turnclient import TurnClient

pytestmark = pytest.mark.timeout(LAB_TIMEOUT_S)

PAGES, TURN = "video.colloque.test", "turn.colloque.test"
SECRET = "a-secret-of-the-tests"
HEADER_TIMEOUT_S = 1.0
CONNECTIONS = 20


class _Echo(http.server.BaseHTTPRequestHandler):
    """Stands for the server: answers with the headers it got, and goes along with an upgrade."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade"):
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(self.rfile.read(5)[::-1])
            self.close_connection = True
            return
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def config(authority: Authority) -> Config:
    pages, turn = authority.issue(PAGES), authority.issue(TURN)
    return from_tree(
        {
            "http": {
                "public_url": f"https://{PAGES}",
                "port": 8080,
                "trusted_proxies": ["127.0.0.1"],
                "header_timeout_s": HEADER_TIMEOUT_S,
                "max_connections_per_address": CONNECTIONS // 2,
            },
            "turn": {
                "host": TURN,
                "secret": SECRET,
                "listen_addresses": [PUBLIC_ADDRESS],
                "tls_cert": str(turn.chain),
                "tls_key": str(turn.key),
            },
            "splitter": {
                "addresses": [PUBLIC_ADDRESS],
                "tls_cert": str(pages.chain),
                "tls_key": str(pages.key),
            },
        }
    )


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nginx wrote to standard error."""
    return tmp_path_factory.mktemp("nginx") / "output"


@pytest.fixture(scope="module")
def lab(config: Config, said: Path) -> Iterator[Lab]:
    """A clinic that lets out nothing but TCP 443, and the three programs on the other side."""
    with Lab() as lab:
        lab.site("only-443")
        folder = said.parent
        with lab.public.entered():
            server = _Server(("127.0.0.1", config.http.port), _Echo)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            (folder / "coturn.conf").write_text(render_coturn(config, SECRET))
            lab.public.spawn("turnserver", "-c", str(folder / "coturn.conf"))
            (folder / "nginx.conf").write_text(render_nginx(config))
            with said.open("wb") as output:
                place = f"daemon off; pid {folder}/nginx.pid;"
                lab.public.spawn("nginx", "-c", str(folder / "nginx.conf"), "-g", place, output=output)
            for port in (config.splitter.port, config.turn.tls_port):
                wait_until(lambda port=port: _accepts(lab, port), f"port {port}")  # type: ignore[misc]
            yield lab
        finally:
            server.shutdown()
            server.server_close()


def _accepts(lab: Lab, port: int) -> bool:
    with lab.public.entered(), contextlib.suppress(OSError):
        socket.create_connection((PUBLIC_ADDRESS, port), 1.0).close()
        return True
    return False


def plain(lab: Lab) -> socket.socket:
    """A TCP connection from the clinic to the one port."""
    with lab.sites[0].computer.entered():
        return socket.create_connection((PUBLIC_ADDRESS, 443), 5.0)


def secure(lab: Lab, authority: Authority, name: str) -> ssl.SSLSocket:
    """A TLS connection whose certificate must be good for `name`."""
    return authority.context().wrap_socket(plain(lab), server_hostname=name)


def get(connection: ssl.SSLSocket, **headers: str) -> dict[str, Any]:
    """Ask for a page; return the headers that the server was given."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {PAGES}\r\n{lines}\r\n".encode())
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(4096)
    assert received.startswith(b"HTTP/1.1 200")
    answer: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
    return answer


def test_the_pages_come_with_their_own_certificate_and_the_client_s_address(lab: Lab, authority: Authority) -> None:
    with secure(lab, authority, PAGES) as connection:
        seen = get(connection)
    assert seen["Host"] == PAGES
    assert seen["X-Forwarded-For"] == "45.80.1.2"


@pytest.mark.parametrize("claim", ["X-Forwarded-For", "X_Forwarded_For"])
def test_what_a_client_says_about_its_address_is_replaced(lab: Lab, authority: Authority, claim: str) -> None:
    with secure(lab, authority, PAGES) as connection:
        seen = get(connection, **{claim: "6.6.6.6"})
    assert "6.6.6.6" not in json.dumps(seen)
    assert seen["X-Forwarded-For"] == "45.80.1.2"


def test_turn_is_reached_by_its_name_with_coturn_s_certificate(lab: Lab, authority: Authority) -> None:
    with secure(lab, authority, TURN) as connection:
        client = TurnClient(connection, *rest_credential(SECRET.encode(), new_id(), int(time.time()) + 600))
        assert client.allocate().error == 0
        assert client.relayed
        assert client.relayed[0] == PUBLIC_ADDRESS
        assert client.permit("45.80.2.2").error == 0


def test_any_other_name_gets_the_pages(lab: Lab, authority: Authority) -> None:
    context = authority.context()
    context.check_hostname = False
    for name in ("evil.example.org", None):
        with context.wrap_socket(plain(lab), server_hostname=name) as connection:
            assert dict(item[0] for item in connection.getpeercert()["subject"])["commonName"] == PAGES  # type: ignore[index,misc]


def test_a_websocket_passes(lab: Lab, authority: Authority) -> None:
    with secure(lab, authority, PAGES) as connection:
        connection.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {PAGES}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello".encode()
        )
        received = b""
        while not received.endswith(b"olleh"):
            more = connection.recv(4096)
            assert more, received
            received += more
    assert received.startswith(b"HTTP/1.1 101")


def closed_after(connection: socket.socket) -> float:
    """Return after how many seconds the other end closes."""
    started = time.monotonic()
    connection.settimeout(HEADER_TIMEOUT_S + 5)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(4096):
            pass
    return time.monotonic() - started


def test_a_connection_that_never_says_a_name_is_closed(lab: Lab) -> None:
    with plain(lab) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert closed_after(connection) < HEADER_TIMEOUT_S + 2


def test_a_half_sent_handshake_is_closed(lab: Lab, authority: Authority) -> None:
    """The client hello is whole, so the name is known; then nothing."""
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = authority.context().wrap_bio(received, sent, server_hostname=PAGES)
    with contextlib.suppress(ssl.SSLWantReadError):
        half.do_handshake()
    with plain(lab) as connection:
        connection.sendall(sent.read())
        assert closed_after(connection) < HEADER_TIMEOUT_S + 2


def test_half_sent_headers_are_closed(lab: Lab, authority: Authority) -> None:
    with secure(lab, authority, PAGES) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert closed_after(connection) < HEADER_TIMEOUT_S + 2


def test_connections_of_one_address_are_counted(lab: Lab, authority: Authority) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(secure(lab, authority, TURN))
        with pytest.raises(OSError):
            secure(lab, authority, TURN)


def test_nginx_writes_nothing_about_anybody(lab: Lab, said: Path) -> None:
    """Last: after all of the above it has said nothing, on standard error or in its folder of logs."""
    with plain(lab) as connection:
        connection.sendall(b"\x16\x03\x01\x00\x05hello")
    assert said.read_bytes() == b""
    for log in Path("/var/log/nginx").glob("*.log"):
        assert "45.80." not in log.read_text(errors="replace")
