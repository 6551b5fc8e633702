"""Nothing about anybody in logs, metrics or files (SECURITY row 22): a whole call at DEBUG, and everything that fails.

Every private value of the call is a canary: a string found nowhere else. Afterwards they are searched for in standard
error, standard output, /metrics, and every byte of the data folder. A name may stand in two places, the name columns of
links and seats; nothing else may stand anywhere.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.live import Live, live_server
from tests.participant import Participant

NAMES = {"clinician": "Dr Canarine Zwitsch", "patient": "Séraphine Kanari-Oiseau"}
ADDRESSES = ("203.0.113.77", "2001:db8:ca9a:817::77", "192.0.2.177", "fd00:ca9a::1")
WORDS = ("canary-reason-fracture", "canary-told-in-ten-minutes", "canary-refused-because")
USER_AGENT = "CanaryBrowser/77.1"
QUERY = "canary-query-77"
TURN_SECRET = "canary-turn-secret-77"
UFRAG, PWD, FINGERPRINT = "cnrY", "canaryicepassword0077777", ":".join(["CA"] * 16 + ["7F"] * 16)
SDP = f"""v=0\r
o=- 7777777777777777777 2 IN IP4 {ADDRESSES[0]}\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
m=audio 9 UDP/TLS/RTP/SAVPF 111\r
c=IN IP4 {ADDRESSES[0]}\r
a=rtcp-mux\r
a=mid:0\r
a=sendrecv\r
a=ice-ufrag:{UFRAG}\r
a=ice-pwd:{PWD}\r
a=fingerprint:sha-256 {FINGERPRINT}\r
a=setup:actpass\r
a=rtpmap:111 opus/48000/2\r
"""


@pytest.fixture
async def loud() -> AsyncIterator[Live]:
    turn = {"host": "turn.example.org", "secret": TURN_SECRET}
    async with live_server(log={"level": "debug"}, turn=turn) as live:
        yield live


class Canaries:
    """What must not be found, by what it is."""

    def __init__(self, live: Live) -> None:
        self.values: dict[str, str] = {
            "API key": live.key, "TURN secret": TURN_SECRET, "browser": USER_AGENT, "query": QUERY,
            "ICE password": PWD, "fingerprint": FINGERPRINT, "session id": "7777777777777777777",
            **{f"address {address}": address for address in ADDRESSES},
            **{f"words {word}": word for word in WORDS},
        }  # fmt: skip

    def add(self, what: str, value: str) -> None:
        self.values[what] = value

    def found_in(self, text: str | bytes) -> list[str]:
        data = text.encode() if isinstance(text, str) else text
        return [what for what, value in self.values.items() if value.encode() in data]


async def call(live: Live, canaries: Canaries) -> None:
    """A consultation from the links to the end, with everything that a browser sends on the way."""
    room = await live.room()
    people: dict[str, Participant] = {}
    for role in ("clinician", "patient"):
        url = await live.link(room, role, name=NAMES[role])
        canaries.add(f"{role}'s link", url.partition("#")[2])
        people[role] = await Participant.arrive(
            live, url, headers={"User-Agent": USER_AGENT, "X-Forwarded-For": ADDRESSES[2]}
        )
        canaries.add(f"{role}'s resume secret", people[role].welcome["resume"])
    clinician, patient = people["clinician"], people["patient"]

    await clinician.send("join")
    joined = await clinician.next("state")
    canaries.add("TURN password", next(s["credential"] for s in joined["iceServers"] if "credential" in s))
    await patient.send("ready")
    await patient.next("state")
    await clinician.send("tell", participant=patient.id, text=WORDS[1])
    await patient.next("told")
    await clinician.send("admit", participant=patient.id)
    while (await patient.next("state"))["state"] != "admitted":
        pass
    await patient.send("join")
    await clinician.next("peerJoined")

    await clinician.send("description", to=patient.id, description={"type": "offer", "sdp": SDP})
    await patient.next("peerDescription")
    for address in ADDRESSES:
        candidate = f"candidate:1 1 udp 2122260223 {address} 50077 typ host"
        await clinician.send("candidate", to=patient.id, candidate={"candidate": candidate, "sdpMid": "0"})
        await patient.next("peerCandidate")

    # What is refused quotes nothing of it.
    await clinician.send("description", to=patient.id, description={"type": "offer", "sdp": SDP.replace("v=0", "v=7")})
    await clinician.next("problem")
    await clinician.send("candidate", to=patient.id, candidate={"candidate": ADDRESSES[0] * 2, "sdpMid": "0"})
    await patient.send("refuse", participant=clinician.id, reason=WORDS[2])
    await patient.next("problem")

    await clinician.send("sendBack", participant=patient.id, reason=WORDS[2])
    await patient.next("state")
    await clinician.send("endRoom", reason=WORDS[0])
    for participant in people.values():
        await participant.closed()
        await participant.close()


async def mistakes(live: Live, canaries: Canaries) -> None:
    """First messages and requests that are wrong in every way we could think of."""
    secret = canaries.values["patient's link"]
    for text in (
        f'{{"type":"hello","version":1,"tenant":"{secret}',
        f'{{"type":"hello","version":"{ADDRESSES[0]}","tenant":"clinique","instance":"i","secret":"{secret}"}}',
        f'{{"type":"{WORDS[0]}"}}',
        f'{{"type":"hello","version":1,"tenant":"clinique","instance":"i","secret":"{secret}x"}}',
        f'{{"type":"hello","version":1,"tenant":"other","instance":"i","secret":"{secret}"}}',
        f'{{"type":"hello","version":1,"tenant":"clinique","instance":"i","secret":"{secret}","name":"{NAMES["patient"]}"}}',
        "[" * 1000 + secret,
        NAMES["patient"] * 4000,
    ):
        stranger = await Participant.connect(live)
        await stranger.socket.send_str(text)
        await stranger.closed()
        await stranger.close()
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await Participant.connect(live, headers={"Origin": f"https://{QUERY}.example"})

    for path in (
        f"/t/clinique/r?lang={QUERY}",
        f"/t/{QUERY}/r",
        f"/{QUERY}",
        f"/api/v1/rooms?{QUERY}",
        f"/ws?s={secret}",
    ):
        async with live.api.get(path, headers={"User-Agent": USER_AGENT, "X-Forwarded-For": ADDRESSES[2]}) as answer:
            assert answer.status < 500
    for body in ({"role": "patient", "name": NAMES["patient"] * 50}, {"role": WORDS[0], "name": 7}):
        room = await live.room()
        async with live.api.post(f"/api/v1/rooms/{room.id}/links", json=body) as answer:
            assert 400 <= answer.status < 500
    for raw in (
        f"GET /{QUERY} HTTP/9.9\r\nHost: {ADDRESSES[0]}\r\n\r\n",
        f"{QUERY}\x00{secret} / HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nX-{QUERY} : {secret}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n",
        f"GET /{QUERY * 1000} HTTP/1.1\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(raw.encode())
        writer.write_eof()
        await reader.read()
        writer.close()


async def breakdown(live: Live, canaries: Canaries) -> None:
    """Errors whose messages quote what caused them: the tables are gone under the server."""
    room = await live.room()
    url = await live.link(room, "patient", name=NAMES["patient"])
    canaries.add("link after the breakdown", url.partition("#")[2])
    visitor = await Participant.arrive(live, await live.link(room, "patient", name=NAMES["patient"]))
    with contextlib.closing(sqlite3.connect(live.data_dir / "colloque.db", isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("ALTER TABLE links RENAME TO gone_links")
        database.execute("ALTER TABLE seats RENAME TO gone_seats")
    async with live.api.post(
        f"/api/v1/rooms/{room.id}/links", json={"role": "patient", "name": NAMES["patient"]}
    ) as answer:
        assert answer.status >= 500
    stranger = await Participant.connect(live)
    hello = {"version": 1, "tenant": "clinique", "instance": "i", "secret": canaries.values["link after the breakdown"]}
    await stranger.send("hello", **hello)
    await stranger.closed()
    await stranger.close()
    await visitor.send("ready")  # a seat to save
    await visitor.next("state")
    await visitor.close()
    with contextlib.closing(sqlite3.connect(live.data_dir / "colloque.db", isolation_level=None)) as database:
        database.execute("ALTER TABLE gone_links RENAME TO links")
        database.execute("ALTER TABLE gone_seats RENAME TO seats")


def names_outside_their_columns(live: Live) -> list[str]:
    """Say which columns of which tables hold a name and should not."""
    found = []
    with contextlib.closing(sqlite3.connect(live.data_dir / "colloque.db")) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            cursor = database.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                for column, value in zip(columns, row, strict=True):
                    if any(name in str(value) for name in NAMES.values()) and (table, column) not in ALLOWED:
                        found.append(f"{table}.{column}")
    return found


ALLOWED = {("links", "name"), ("seats", "name")}


async def test_nothing_about_anybody(loud):
    canaries = Canaries(loud)
    await call(loud, canaries)
    await mistakes(loud, canaries)
    await breakdown(loud, canaries)
    async with loud.api.get("/metrics") as answer:
        metrics = await answer.text()
    await loud.stop()

    assert '"level": "error"' in loud.log, "the breakdown was logged"
    assert '"event": "signalling.hello"' in loud.log, "the call was logged"
    where = {"log": loud.log, "output": loud.output, "metrics": metrics}
    for place, text in where.items():
        assert canaries.found_in(text) == [], place
        for private in (*NAMES.values(), "127.0.0.1", "ice-ufrag", "candidate:", "\\u00e9raphine"):
            assert private not in text, f"{private} in {place}"

    for file in sorted(path for path in loud.data_dir.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert canaries.found_in(content) == [], file.name
        if not file.name.startswith("colloque.db"):
            assert not any(name.encode() in content for name in NAMES.values()), file.name
    assert names_outside_their_columns(loud) == []
    with contextlib.closing(sqlite3.connect(loud.data_dir / "colloque.db")) as database:
        assert database.execute("SELECT count(*) FROM links WHERE name = ?", [NAMES["patient"]]).fetchone()[0] >= 2
