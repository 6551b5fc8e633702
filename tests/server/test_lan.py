"""`colloque serve` as a person types it: the demo links, the local network, and every way to get it wrong."""

import argparse
import asyncio
import contextlib
import os
import re
import socket
import ssl
import stat
import sys
from pathlib import Path

import aiohttp
import pytest
import segno
from cryptography import x509

from server import demo, serve, tls
from server.clock import wall_now
from server.config import Config, from_tree
from server.errors import ConfigError
from tests.live import ROOT, live_server
from tests.participant import Participant


def arguments(**given: object) -> argparse.Namespace:
    usual = {"demo": False, "host": None, "port": None, "lan": False, "tls_cert": None, "tls_key": None}
    return argparse.Namespace(**(usual | {"tls_self_signed": False} | given))


async def run(*command: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=os.environ | environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def links_of(live) -> list[str]:
    """The links on standard output, each alone on its line."""
    return re.findall(r"^https?://\S+$", await live.printed("Ctrl-C"), re.MULTILINE)


async def test_demo_prints_two_links_that_work():
    async with live_server("--demo") as live:
        clinician, patient = await links_of(live)
        before = live.output.splitlines()
        assert before[before.index(clinician) - 1] == "Soignant / Clinician:"
        assert before[before.index(patient) - 1] == "Patient:"
        assert clinician.startswith(f"{live.origin}/t/demo/r#")
        assert len(clinician.removeprefix(live.origin)) <= 80, "fits an SMS"
        doctor = await Participant.arrive(live, clinician)
        visitor = await Participant.arrive(live, patient)
        assert doctor.id != visitor.id
        for participant in (doctor, visitor):
            await participant.close()


async def test_demo_room_is_used_again_until_it_is_ended(tmp_path):
    async with live_server() as live:
        store = live.store
        first = await demo.prepare(store, live.origin)
        second = await demo.prepare(store, live.origin)
        rooms = await store.rooms("demo")
        assert len(rooms) == 1
        assert len({first.clinician, first.patient, second.clinician, second.patient}) == 4, "fresh links"
        await store.end_room(rooms[0].id, "clinician")
        await demo.prepare(store, live.origin)
        assert len(await store.rooms("demo")) == 2


async def test_lan_with_a_self_signed_certificate():
    """On the address of this machine in its network; it needs one, as Firefox does."""
    address = serve.lan_address()
    async with live_server("--demo", "--lan", "--tls-self-signed") as live:
        assert live.origin == f"https://{address}:{live.port}"
        _, patient = await links_of(live)
        assert "▀" in live.output, "a QR code"
        note = await live.printed("--tls-cert")
        assert "iPhone" in note and "avertissement" in note
        trusting = ssl.create_default_context(cafile=live.data_dir / "tls" / "self-signed.pem")
        page = patient.partition("#")[0]
        async with aiohttp.ClientSession() as session, session.get(page, ssl=trusting) as answer:
            assert answer.status == 200
            assert f"wss://{address}:{live.port}" in answer.headers["Content-Security-Policy"]
        with pytest.raises(aiohttp.ClientError):
            async with aiohttp.ClientSession() as session, session.get(page):
                pass
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", live.port)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lan": True}, "--lan needs TLS"),
        ({"lan": True, "host": "10.0.0.1"}, "leave out --host"),
        ({"tls_self_signed": True, "tls_cert": Path("a"), "tls_key": Path("b")}, "--tls-self-signed makes"),
        ({"tls_cert": Path("a")}, "go together"),
        ({"tls_self_signed": True, "host": "localhost"}, "needs an address"),
        ({"host": "0.0.0.0"}, "`http.public_url` must say"),
    ],
)
def test_contradictions_are_named(given, says, monkeypatch):
    monkeypatch.setattr(serve, "lan_address", lambda: "192.0.2.10")
    with pytest.raises(ConfigError, match=re.escape(says)):
        serve.settle(Config(), arguments(**given))


def test_the_command_line_wins():
    config = from_tree({"http": {"port": 9000, "host": "127.0.0.2"}})
    settled = serve.settle(config, arguments(port=0, host="127.0.0.3"))
    assert (settled.http.port, settled.http.host) == (0, "127.0.0.3")
    assert serve.settle(config, arguments()) == config


def test_no_route_no_lan(monkeypatch):
    def refuse(self: socket.socket, address: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", type("NoRoute", (socket.socket,), {"connect": refuse}))
    with pytest.raises(ConfigError, match="no route"):
        serve.lan_address()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "192.0.2.1", "port": 0}, "not an address of this machine"),
        ({"host": "no-such-host.invalid", "port": 0}, "neither an address nor a known name"),
    ],
)
def test_where_nobody_can_listen(settings, says):
    with pytest.raises(ConfigError, match=says):
        serve.bind(from_tree({"http": settings}).http)


async def test_busy_port(tmp_path):
    """Said by the real command: the port, the option, no traceback; and nothing was made on disk."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = (sys.executable, "-m", "server", "serve", "--demo", "--port", str(port))
        status, output, errors = await run(*command, COLLOQUE_DATA_DIR=str(tmp_path / "data"))
    assert (status, output) == (2, "")
    assert errors.startswith(f"colloque: port {port} is already used") and "--port" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "data").exists()


async def test_listens_on_both_families():
    with serve.bind(from_tree({"http": {"host": "::", "port": 0}}).http) as listener:
        for address in ("127.0.0.1", "::1"):
            with contextlib.closing(socket.create_connection((address, listener.getsockname()[1]), timeout=2)):
                pass


# Certificates ---------------------------------------------------------------------------------------------------------


def test_self_signed_covers_address_and_host(tmp_path):
    cert, key = tls.self_signed(tmp_path / "tls", "192.0.2.10")
    parsed = x509.load_pem_x509_certificate(cert.read_bytes())
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.10"]
    assert socket.gethostname() in names.get_values_for_type(x509.DNSName)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert tls.server_context(cert, key).minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.name_for(cert, "192.0.2.10") == "192.0.2.10"
    assert tls.name_for(cert, "192.0.2.11") == socket.gethostname()


def test_self_signed_is_kept_while_it_fits(tmp_path):
    made = tls.self_signed(tmp_path, "192.0.2.10")[0].read_bytes()
    assert tls.self_signed(tmp_path, "192.0.2.10")[0].read_bytes() == made
    assert tls.self_signed(tmp_path, "192.0.2.11")[0].read_bytes() != made
    (tmp_path / "self-signed.pem").write_text("rubbish")
    tls.server_context(*tls.self_signed(tmp_path, "192.0.2.11"))


def test_self_signed_is_renewed_in_its_last_month(tmp_path, monkeypatch):
    made = tls.self_signed(tmp_path, "192.0.2.10")[0].read_bytes()
    later = wall_now() + tls._LIFETIME - tls._RENEW_BEFORE
    monkeypatch.setattr(tls, "wall_now", lambda: later)
    assert tls.self_signed(tmp_path, "192.0.2.10")[0].read_bytes() != made


@pytest.mark.parametrize("broken", ["missing", "rubbish", "another key"])
def test_certificate_that_cannot_be_used(tmp_path, broken):
    cert, key = tls.self_signed(tmp_path / "one", "192.0.2.10")
    if broken == "missing":
        key = tmp_path / "nowhere.key"
    elif broken == "rubbish":
        cert = tmp_path / "rubbish.pem"
        cert.write_text("not a certificate")
    else:
        key = tls.self_signed(tmp_path / "two", "192.0.2.10")[1]
    with pytest.raises(ConfigError, match="cannot be used"):
        tls.server_context(cert, key)


# The QR code ----------------------------------------------------------------------------------------------------------


def test_qr_code_is_black_on_white_whatever_the_terminal():
    lines = demo.qr_code("https://192.0.2.10:8080/t/demo/r#GIAIG-3c3m1b09eoIK-BaQ").splitlines()
    cells = [re.findall(r"\x1b\[38;5;(\d+);48;5;(\d+)m▀", line) for line in lines]
    assert all(line.endswith("\x1b[0m") for line in lines), "colours do not run into the next line"
    assert {colour for row in cells for cell in row for colour in cell} == {"16", "231"}
    assert len(cells[0]) <= 80, "fits a terminal"
    quiet = {("231", "231")}
    assert set(cells[0]) == set(cells[1]) == quiet, "four light modules above"
    assert all({*row[:4], *row[-4:]} == quiet for row in cells), "and beside"


def test_qr_code_is_what_the_encoder_meant():
    """The matrix survives the half blocks."""
    text = "https://192.0.2.10:8080/t/demo/r#GIAIG-3c3m1b09eoIK-BaQ"
    pixels = []
    for line in demo.qr_code(text).splitlines():
        cells = re.findall(r"\x1b\[38;5;(\d+);48;5;(\d+)m▀", line)
        pixels += [[upper == "16" for upper, _ in cells], [lower == "16" for _, lower in cells]]
    wanted = [[bool(module) for module in row] for row in segno.make(text, error="m").matrix_iter(border=4)]
    assert pixels[: len(wanted)] == wanted
    assert not any(any(row) for row in pixels[len(wanted) :])
