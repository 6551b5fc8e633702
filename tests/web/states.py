"""Every state of the room's page, and how to bring a real browser into it.

The pages, their security policy and the library are the real ones, from a running server; only the WebSocket is
answered by `Script`, so that each state is reached the same way every time. The picture of the other person is real
too: a second RTCPeerConnection in the same page (`far_end.js`) answers the offers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.async_api import Page, WebSocketRoute

FAR_END = (Path(__file__).parent / "far_end.js").read_text()
LONG_MS = 600_000
NAMES = {
    "clinician": "Dr Hélène Marchand",
    "patient": "Odette Lefèvre",
    "guest": "Karim Benali",
    "observer": "Julie Roy",
}


def peer(role: str = "clinician", name: str | None = None, **members: Any) -> dict[str, Any]:
    """Return one participant of the conversation, as the server tells of them."""
    name = NAMES[role] if name is None else name
    return {
        "id": f"peer-{name.split()[-1]}", "role": role, "name": name, "connection": "online", "microphone": "on",
        "camera": "on", "instance": "far", "polite": False, **members,
    }  # fmt: skip


def visitor(name: str, state: str = "waiting", minutes: int = 0, role: str = "patient") -> dict[str, Any]:
    """Return one person of the clinician's waiting list."""
    return {
        "id": f"visitor-{name.split()[-1]}", "role": role, "name": name, "state": state, "connection": "online",
        "sinceMs": minutes * 60_000 + 5000,
    }  # fmt: skip


@dataclass
class Script:
    """The server's side of one WebSocket, played by the test."""

    role: str = "patient"
    language: str = "fr"
    opening: list[dict[str, Any]] = field(default_factory=list)
    """Answers `hello`; empty: a welcome in state `arrived`."""
    peers: list[dict[str, Any]] = field(default_factory=list)
    """Whom one meets on joining."""
    page: Page | None = None
    socket: WebSocketRoute | None = None
    heard: list[dict[str, Any]] = field(default_factory=list)
    """What the page has sent."""
    deaf: bool = False
    """Nothing is answered any more: the network to the server is gone."""

    def welcome(self, state: str = "arrived") -> dict[str, Any]:
        """Return the answer to `hello`."""
        return {
            "type": "welcome", "version": 1, "id": "me", "role": self.role, "name": NAMES[self.role], "state": state,
            "resume": "resume-secret", "language": self.language, "room": "Zk3rYb1T8uQ5xW2n",
            "pingIntervalMs": LONG_MS, "deadAfterMs": LONG_MS,
        }  # fmt: skip

    def answer(self, socket: WebSocketRoute) -> None:
        """Take a WebSocket of the page."""
        self.socket = socket
        socket.on_message(lambda text: self._on_message(json.loads(text)))

    def say(self, **message: Any) -> None:
        """Send one message to the page."""
        assert self.socket is not None
        self.socket.send(json.dumps(message))

    def commands(self, kind: str) -> list[dict[str, Any]]:
        """Return what the page has asked for, of one type."""
        return [message for message in self.heard if message["type"] == kind]

    def _on_message(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        if self.deaf:
            return
        match message["type"]:
            case "hello":
                for answer in self.opening or [self.welcome()]:
                    self.say(**answer)
            case "ready" if self.role == "clinician":
                self.say(type="state", state="admitted", iceServers=[])
            case "ready":
                self.say(type="state", state="waiting", place=1)
            case "join":
                self.say(type="state", state="joined", peers=self.peers)
            case "leave":
                self.say(type="state", state="left")
            case "description":
                task = asyncio.ensure_future(self._describe(message))
                task.add_done_callback(lambda done: done.exception())

    async def _describe(self, message: dict[str, Any]) -> None:
        assert self.page is not None
        description = await self.page.evaluate(
            "([id, sdp]) => farEnd(id, sdp)", [message["to"], message["description"]]
        )
        sender = {"from": message["to"]}
        self.say(type="peerDescription", instance="far", description=description, **sender)


class Stage:
    """One page in the browser, and what a person does on it."""

    def __init__(self, page: Page, url: str, script: Script) -> None:
        self.page = page
        self.url = url
        self.script = script

    async def open(self) -> None:
        """Open the link."""
        self.script.page = self.page
        await self.page.route_web_socket("**/ws", self.script.answer)
        await self.page.goto(self.url, wait_until="commit")

    async def press(self, testid: str) -> None:
        """Click the visible element with this test id."""
        await self.page.locator(f'[data-testid="{testid}"]:visible').first.click()

    async def until(self, state: str, code: str = "") -> None:
        """Wait for a state of `main`."""
        selector = f'main[data-state="{state}"]' + (f'[data-code="{code}"]' if code else "")
        await self.page.wait_for_selector(selector)

    async def devices(self) -> None:
        """Through the explanation, to the choice of devices."""
        await self.open()
        await self.until("welcome")
        await self.press("allow-devices")
        await self.until("devices")

    async def wait(self) -> None:
        """Into the waiting room."""
        await self.devices()
        await self.press("enter-waiting")
        await self.until("waiting")

    async def call(self) -> None:
        """Into the conversation, and until everybody is seen who should be."""
        if self.script.role == "clinician":
            await self.devices()
            await self.press("join")
        else:
            await self.wait()
            self.script.say(type="state", state="admitted", iceServers=[])
        await self.until("call")
        for other in self.script.peers:
            if other["camera"] == "on":
                await self.page.wait_for_function(
                    "id => document.querySelector(`video[data-peer='${id}']`)?.videoWidth > 0", arg=other["id"]
                )
        if self.script.peers:
            await self.page.wait_for_function(
                "n => [...document.querySelectorAll('[data-words]')].filter(words => !words.hidden).length <= n",
                arg=sum(other["connection"] == "reconnecting" for other in self.script.peers),
            )

    async def emit(self, event: str, **detail: Any) -> None:
        """Let the client tell the page something that only a network or a device would bring about."""
        await self.page.evaluate(
            "([event, detail]) => __colloque.client.dispatchEvent(new CustomEvent(event, {detail}))", [event, detail]
        )


Reach = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class PageState:
    """One state: its name, how to reach it, and what `main` then says."""

    name: str
    reach: Reach
    state: str
    code: str = ""
    role: str = "patient"
    peers: tuple[dict[str, Any], ...] = ()
    opening: tuple[dict[str, Any], ...] = ()
    before: str = ""
    """Script that changes the browser before the page loads."""
    javascript: bool = True


async def _open(stage: Stage) -> None:
    await stage.open()


async def _denied(stage: Stage) -> None:
    await stage.open()
    await stage.press("allow-devices")


def _told(first: Reach, *messages: dict[str, Any]) -> Reach:
    """Reach a state, then hear these messages from the server."""

    async def reach(stage: Stage) -> None:
        await first(stage)
        for message in messages:
            stage.script.say(**message)

    return reach


def _emitted(first: Reach, event: str, **detail: Any) -> Reach:
    """Reach a state, then see this event of the client."""

    async def reach(stage: Stage) -> None:
        await first(stage)
        await stage.emit(event, **detail)

    return reach


async def _skipped(stage: Stage) -> None:
    await stage.open()
    await stage.press("skip-camera")


async def _settings(stage: Stage) -> None:
    await stage.call()
    await stage.press("settings")


async def _muted(stage: Stage) -> None:
    await stage.call()
    await stage.press("toggle-microphone")
    await stage.press("toggle-camera")
    await stage.page.wait_for_selector('[data-testid="toggle-camera"][data-media="off"]')


async def _left(stage: Stage) -> None:
    await stage.call()
    await stage.press("leave")


async def _unplugged(stage: Stage) -> None:
    await stage.call()
    await stage.page.evaluate("fakeDevices.unplug('audio')")
    await stage.page.wait_for_selector('[data-testid="toggle-microphone"][data-media="interrupted"]')


async def _list(stage: Stage) -> None:
    await stage.call()
    stage.script.say(
        type="visitors",
        visitors=[
            visitor("Odette Lefèvre", "waiting", 12),
            visitor("Marcel Petit", "arrived", 1),
            visitor("Karim Benali", "waiting", 3, "guest"),
        ],
    )
    if not await stage.page.locator(".people").is_visible():
        await stage.press("people")
    await stage.page.wait_for_selector("[data-visitors] [data-participant]")


def _asked(act: str) -> Reach:
    async def reach(stage: Stage) -> None:
        await _list(stage)
        row = stage.page.locator("[data-visitors] [data-participant]").first
        await row.locator("summary").click()
        if act:
            await row.locator(f'[data-act="{act}"]').click()

    return reach


async def _ending(stage: Stage) -> None:
    await stage.call()
    await stage.press("end-for-all")


def _refused(code: str, reason: str = "", *, retry: bool = False) -> PageState:
    message = {"type": "refused", "code": code, "message": "-", "reason": reason, "retry": retry}
    return PageState(code, _open, "problem", code, opening=(message,))


def _fails(error: str) -> str:
    return f"fakeDevices.error = {error!r};"


DOCTOR = (peer("clinician"),)
PATIENT = (peer("patient"),)
COLLEAGUES = (
    peer("clinician"),
    peer("guest"),
    peer("guest", "Anne Roussel", camera="off"),
    peer("guest", "Nadia Haddad", microphone="off"),
    peer("guest", "Paul-Henri de la Rochefoucauld-Montbel"),
    peer("guest", "Lucie Martin", camera="off"),
    peer("guest", "Jean Morel"),
    peer("guest", "Inès Garcia", connection="reconnecting"),
)
"""Who may come to a consultation: a colleague, an interpreter, a nurse, relatives."""
TOMORROW = (datetime.now(UTC).replace(hour=13, minute=30, second=0, microsecond=0) + timedelta(days=1)).isoformat()

STATES = (
    PageState("connecting", _open, "connecting", opening=({"type": "ping"},)),
    PageState("welcome", _open, "welcome"),
    PageState("welcome-observer", _open, "welcome", role="observer"),
    PageState("devices", Stage.devices, "devices"),
    PageState("devices-without", _skipped, "devices"),
    PageState("devices-no-camera", Stage.devices, "devices", before="fakeDevices.missing = 'video';"),
    PageState("waiting-not-arrived", Stage.wait, "waiting"),
    PageState(
        "waiting-expected",
        _told(Stage.wait, {"type": "state", "state": "waiting", "place": 3, "expected": True}),
        "waiting",
    ),
    PageState(
        "waiting-message",
        _told(
            Stage.wait,
            {"type": "state", "state": "waiting", "place": 1, "expected": True},
            {"type": "told", "text": "J’ai dix minutes de retard, pardon. Je vous prends juste après."},
        ),
        "waiting",
    ),
    PageState("call", Stage.call, "call", peers=DOCTOR),
    PageState("call-alone", Stage.call, "call"),
    PageState("call-muted", _muted, "call", peers=DOCTOR),
    PageState(
        "call-bad-quality", _emitted(Stage.call, "quality", peerId=DOCTOR[0]["id"], level="bad"), "call", peers=DOCTOR
    ),
    PageState(
        "call-peer-reconnecting",
        _told(
            Stage.call, {"type": "peerChanged", "peer": peer("clinician", connection="reconnecting", microphone="off")}
        ),
        "call",
        peers=DOCTOR,
    ),
    PageState("call-peer-camera-off", Stage.call, "call", peers=(peer("clinician", camera="off", microphone="off"),)),
    PageState("call-unplugged", _unplugged, "call", peers=DOCTOR),
    PageState("call-autoplay-refused", Stage.call, "call", peers=DOCTOR, before="fakeDevices.refuseSound();"),
    PageState("call-three", Stage.call, "call", peers=COLLEAGUES[:2]),
    PageState("call-four", Stage.call, "call", peers=COLLEAGUES[:3]),
    PageState(
        "call-six",
        _told(Stage.call, {"type": "speakers", "participants": [COLLEAGUES[1]["id"]]}),
        "call",
        peers=COLLEAGUES[:5],
    ),
    PageState("call-nine", Stage.call, "call", peers=COLLEAGUES),
    PageState("settings", _settings, "call", peers=DOCTOR),
    PageState("ended-left", _left, "ended", peers=DOCTOR),
    PageState(
        "ended-by-clinician",
        _told(Stage.call, {"type": "roomEnded", "by": "clinician", "reason": ""}),
        "ended",
        peers=DOCTOR,
    ),
    PageState("ended-by-host", _told(Stage.wait, {"type": "roomEnded", "by": "host", "reason": ""}), "ended"),
    PageState("room_ended", _open, "ended", opening=({"type": "refused", "code": "room_ended", "message": "-"},)),
    _refused("link_unknown"),
    _refused("link_not_yet", TOMORROW, retry=True),
    _refused("link_expired"),
    _refused("link_revoked"),
    _refused("refused", "Votre médecin est parti en urgence. Le secrétariat vous rappelle cet après-midi."),
    _refused("removed"),
    _refused("taken_over"),
    _refused("rate_limited", retry=True),
    _refused("internal"),
    PageState("occupied", _open, "problem", "occupied", opening=({"type": "occupied"},)),
    PageState("permission_denied", _denied, "problem", "permission_denied", before=_fails("NotAllowedError")),
    PageState("device_missing", _denied, "problem", "device_missing", before=_fails("NotFoundError")),
    PageState("device_busy", _denied, "problem", "device_busy", before=_fails("NotReadableError")),
    PageState("unsupported", _open, "problem", "unsupported", before="delete globalThis.RTCPeerConnection;"),
    PageState(
        "insecure_context",
        _open,
        "problem",
        "insecure_context",
        before="Object.defineProperty(globalThis, 'isSecureContext', {value: false});",
    ),
    PageState("no-javascript", _open, "connecting", javascript=False),
    PageState("clinician-welcome", _open, "welcome", role="clinician"),
    PageState("clinician-devices", Stage.devices, "devices", role="clinician"),
    PageState("clinician-alone", Stage.call, "call", role="clinician"),
    PageState("clinician-list", _list, "call", role="clinician"),
    PageState("clinician-menu", _asked(""), "call", role="clinician"),
    PageState("clinician-message", _asked("tell"), "call", role="clinician"),
    PageState("clinician-refuse", _asked("refuse"), "call", role="clinician"),
    PageState("clinician-call", Stage.call, "call", role="clinician", peers=PATIENT),
    PageState("clinician-call-list", _list, "call", role="clinician", peers=PATIENT),
    PageState("clinician-call-three", Stage.call, "call", role="clinician", peers=(PATIENT[0], COLLEAGUES[1])),
    PageState("clinician-call-six-list", _list, "call", role="clinician", peers=(PATIENT[0], *COLLEAGUES[1:5])),
    PageState("clinician-end", _ending, "call", role="clinician", peers=PATIENT),
    PageState("clinician-settings", _settings, "call", role="clinician", peers=PATIENT),
)
