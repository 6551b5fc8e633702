"""How the direct connection of one pair fares, out of what both ends report: is it a reason to leave it?

Driven by `topology.py`. A report is one side's view, so the worse of both counts; an alarm goes on when a measure was
bad for a while and off when it is good, with a gap between the two thresholds, so that a value on the edge does not
rattle.
Memory: two reports per pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from server.signalling.messages import MoveReason, PathReport

LOSS_BAD: Final = 0.10
"""libwebrtc's sender takes loss above 10 % for congestion that it must yield to, and lowers the picture's rate."""
LOSS_GOOD: Final = 0.02
"""libwebrtc's sender raises the rate again below 2 %."""
RTT_BAD_MS: Final = 600.0
"""ITU-T G.114: 400 ms from mouth to ear is the limit; capture, jitter buffer and sound card take about 100 of them."""
RTT_GOOD_MS: Final = 400.0
"""ITU-T G.114: up to 200 ms each way most people do not mind."""
GAIN_MS: Final = 30.0
"""What the way through the media server has to save: less than one picture at 30 a second is not worth a move."""
BAD_FOR_S: Final = 6.0
"""Three reports of 2 s: a short interference is over by then, and a person has just begun to be annoyed."""
CONNECT_S: Final = 3.0
"""A link that never lived gets this long: ICE and DTLS take a second or two on a mobile network."""
FRESH_S: Final = 10.0
"""A report older than this says nothing about now: five reports are missing (hidden pages send them late)."""


@dataclass(slots=True)
class Alarm:
    """One measure with two thresholds."""

    on: bool = False
    _bad_since: float | None = None

    def update(self, now: float, *, bad: bool, good: bool, patience_s: float, may_clear: bool) -> None:
        """Take a measurement; neither bad nor good changes nothing."""
        if bad:
            if self._bad_since is None:
                self._bad_since = now
            self.on = self.on or now - self._bad_since >= patience_s
        else:
            self._bad_since = None
            if good and may_clear:
                self.on = False


@dataclass(slots=True)
class Link:
    """The direct connection of a pair."""

    _reports: dict[str, tuple[float, PathReport]] = field(default_factory=dict)
    _lived: bool = False
    _failure: Alarm = field(default_factory=Alarm)
    _quality: Alarm = field(default_factory=Alarm)
    _turn: Alarm = field(default_factory=Alarm)

    @property
    def trouble(self) -> MoveReason | None:
        """The gravest reason to leave it."""
        if self._failure.on:
            return "failure"
        if self._quality.on:
            return "quality"
        return "turn" if self._turn.on else None

    def lives(self, now: float) -> bool:
        """Whether both ends say so, and said so lately."""
        return len(self._reports) == 2 and all(
            report.alive and now - at <= FRESH_S for at, report in self._reports.values()
        )

    def receive(self, sender: str, report: PathReport, now: float, *, may_clear: bool) -> None:
        """Take what one end says.

        Args:
            sender: Which end.
            report: Its view.
            now: Monotonic seconds.
            may_clear: Alarms may go off; not while the room is moving on account of one.
        """
        self._reports[sender] = now, report
        self.judge(now, may_clear=may_clear)

    def judge(self, now: float, *, may_clear: bool) -> None:
        """Set the alarms by what is known now."""
        reports = [report for at, report in self._reports.values() if now - at <= FRESH_S]
        if not reports:
            return
        dead, lives = not all(report.alive for report in reports), self.lives(now)
        self._lived = self._lived or lives
        patience_s = 0.0 if self._lived else CONNECT_S
        self._failure.update(now, bad=dead, good=lives, patience_s=patience_s, may_clear=may_clear)
        if dead:
            return  # numbers of a dead link mean nothing
        loss = max(report.loss for report in reports)
        rtt_ms = max((report.rtt_ms for report in reports if report.rtt_ms is not None), default=0.0)
        gain_ms = rtt_ms - self._relayed_rtt_ms()
        bad = loss >= LOSS_BAD or (rtt_ms >= RTT_BAD_MS and gain_ms >= GAIN_MS)
        good = loss <= LOSS_GOOD and (rtt_ms <= RTT_GOOD_MS or gain_ms <= 0)
        self._quality.update(now, bad=bad, good=good, patience_s=BAD_FOR_S, may_clear=may_clear)
        turn = any(report.turn for report in reports)
        bad, good = turn and gain_ms >= GAIN_MS, not turn or gain_ms <= 0
        self._turn.update(now, bad=bad, good=good, patience_s=BAD_FOR_S, may_clear=may_clear)

    def renew(self) -> None:
        """One end has a new page, and so another connection: what was said of the old one is void."""
        self._reports.clear()
        self._lived = False

    def _relayed_rtt_ms(self) -> float:
        """How long the way through the media server takes; endless as long as one end does not know its part."""
        parts = [report.relay_rtt_ms for _, report in self._reports.values()]
        return sum(part if part is not None else float("inf") for part in parts) if len(parts) == 2 else float("inf")
