"""The demonstration room: a clinic called `demo`, a room, and two fresh links to try it with. [IO]"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TextIO

import segno

from server.records import Tenant
from server.store import Store

_SLUG = "demo"
_NAME = "Cabinet de démonstration"
_INK, _PAPER = "38;5;16", "38;5;231"
"""Black and white of the fixed 256-colour cube: the same on a dark and on a light terminal, whatever its theme."""
_INK_BELOW, _PAPER_BELOW = "48;5;16", "48;5;231"
_QUIET_ZONE = 4
"""Modules around a QR code (ISO/IEC 18004)."""


@dataclass(frozen=True)
class DemoLinks:
    """One link for each side of the consultation."""

    clinician: str
    patient: str


async def prepare(store: Store, origin: str) -> DemoLinks:
    """Return fresh links into the demonstration room, which is made when there is none or the last one was ended."""
    if await store.tenant(_SLUG) is None:
        await store.create_tenant(Tenant(slug=_SLUG, name=_NAME))
    still_open = await store.rooms(_SLUG, "open", limit=1)
    room = still_open[0] if still_open else await store.create_room(_SLUG)
    _, clinician = await store.mint_link(room, "clinician", "Dr Camille Martin")
    _, patient = await store.mint_link(room, "patient", "Dominique Petit")
    return DemoLinks(f"{origin}/t/{_SLUG}/r#{clinician}", f"{origin}/t/{_SLUG}/r#{patient}")


def show(links: DemoLinks, *, qr: bool, out: TextIO = sys.stdout) -> None:
    """Print the links, each alone on its line so that a triple click copies it; the patient's as QR code too."""
    print(file=out)
    for label, link in (("Soignant / Clinician:", links.clinician), ("Patient:", links.patient)):
        print(f"{label}\n{link}\n", file=out)
    if qr:
        print("Patient, à scanner avec un téléphone / to scan with a phone:", file=out)
        print(qr_code(links.patient), file=out)
    print("Ctrl-C pour arrêter / to stop", file=out, flush=True)


def qr_code(text: str) -> str:
    """Return a QR code for a terminal, two modules a character: always black on white, as cameras expect it."""
    rows = [bytes(row) for row in segno.make(text, error="m").matrix_iter(border=_QUIET_ZONE)]
    if len(rows) % 2:
        rows.append(bytes(len(rows[0])))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = (
            f"\x1b[{_INK if up else _PAPER};{_INK_BELOW if low else _PAPER_BELOW}m▀"
            for up, low in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
