"""A call in the lab whose one end has a network that loses packets, and what comes of it. [IO]

    clinician ──── public ──── NAT that loses ──── patient

The patient's network alone loses: so a packet crosses it once, on a direct call and on a relayed one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from server.records import Topology
from tests import connections
from tests.interop.alone import Alone
from tests.interop.deployment import Person, admit, back_after

SIZE = (640, 360)
"""Some packets for each picture."""
SETTLE_S = 4.0
"""Bandwidth estimation, before anything is lost."""


@dataclass(frozen=True)
class Way:
    """One direction, as the one who receives has it."""

    lost_by_network: int
    """UDP packets that the network lost, sound and reports included."""
    lost: int
    """Packets of pictures that did not come at first."""
    recovered: int
    """Of these, those that came again (RTX)."""
    frames_per_second: float
    freezes: int
    """W3C `freezeCount`."""
    frozen_part: float
    """W3C `totalFreezesDuration`, of the time measured."""
    gap_s: float
    """The longest time without a new picture."""

    @property
    def repaired(self) -> float:
        """Which part of the losses; more than 1 does not count: some are sent again twice."""
        return min(self.recovered / self.lost, 1.0) if self.lost else 1.0


@dataclass(frozen=True)
class Seen:
    """Both directions: up is what the patient sends."""

    up: Way
    down: Way
    nacked: int
    """By receivers, as the server counts; a direct call has none."""
    retransmitted: int


async def lossy_call(server: Alone, topology: Topology, part: float, seconds: float) -> Seen:
    """Have a call, lose this part of the packets each way for so long, and say what the two saw.

    On a relayed call the repair of the first leg is read from the server, that of the second from the receiver; what
    the clinician's page then lacks is part of neither.
    """
    server.lab.clear()
    clinic, home = server.lab.site("open"), server.lab.site("cone")
    async with server.consultation(clinic, home, topology, SIZE) as (clinician, patient):
        await admit(clinician, patient)
        await asyncio.gather(*(back_after(person, 0.0, within_s=30) for person in (clinician, patient)))
        await asyncio.sleep(SETTLE_S)
        home.lose_at_random(part)
        begun = [await _begin(person) for person in (clinician, patient)]
        counted = server.metrics()
        await asyncio.sleep(seconds)
        lost = home.lost()
        home.lose_at_random(0)
        await asyncio.sleep(0.5)  # the last repairs
        there, here = [
            await _seen(person, since, seconds) for person, since in zip((clinician, patient), begun, strict=True)
        ]
        told = server.metrics()
        grown = {
            name: int(told[f"colloque_media_{name}_packets_total"] - counted[f"colloque_media_{name}_packets_total"])
            for name in ("lost", "recovered", "nacked", "retransmitted")
        }
    if topology == "relay-only":
        there |= {"lost": grown["lost"], "recovered": grown["recovered"]}
    up, down = Way(lost[0], **there), Way(lost[1], **here)  # type: ignore[arg-type]  # counts are whole
    return Seen(up, down, grown["nacked"], grown["retransmitted"])


_COUNTED = ("packetsLost", "retransmittedPacketsReceived", "framesDecoded", "freezeCount", "totalFreezesDuration")


async def _begin(person: Person) -> dict[str, float]:
    await person.page.evaluate("__seen.length = 0")
    return await _counters(person)


async def _counters(person: Person) -> dict[str, float]:
    received = (await connections.stats(person.page)).received("video")
    return {name: received.get(name) or 0 for name in _COUNTED}


async def _seen(person: Person, before: dict[str, float], seconds: float) -> dict[str, float]:
    after = await _counters(person)
    gap_ms = await person.page.evaluate("Math.max(0, ...__seen.slice(1).map((at, i) => at - __seen[i]))")
    lost, again, frames, freezes, frozen_s = (after[name] - before[name] for name in _COUNTED)
    return {
        "lost": lost,
        "recovered": again,
        "frames_per_second": frames / seconds,
        "freezes": freezes,
        "frozen_part": frozen_s / seconds,
        "gap_s": gap_ms / 1000,
    }
