"""The peer connections of a page, whoever made them, and what `getStats` tells of the one that carries media. [IO]

await page.add_init_script(connections.WATCH)       # before the page's own scripts
...
told = await connections.stats(page)
told.received("video")["framesDecoded"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.browsers import Page

WATCH = """globalThis.__connections = [];
globalThis.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...configuration) { super(...configuration); __connections.push(this); }
};"""

# The one that receives the most: in an auto room the other is only held.
_STATS = """async () => {
  let best = null, most = -1;
  for (const connection of __connections) {
    if (connection.connectionState !== 'connected') continue;
    const entries = [...(await connection.getStats()).values()];
    const bytes = entries.reduce((sum, entry) => sum + (entry.type === 'transport' ? entry.bytesReceived : 0), 0);
    if (bytes > most) [best, most] = [entries, bytes];
  }
  return best;
}"""

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Stats:
    """The report of one connection."""

    entries: tuple[Entry, ...]

    def one(self, of_type: str, **members: Any) -> Entry:
        """Return the entry of this type with these members, the busiest of them."""
        found = [
            entry
            for entry in self.entries
            if entry["type"] == of_type and all(entry.get(name) == value for name, value in members.items())
        ]
        return max(found, key=lambda entry: entry.get("packetsReceived", entry.get("packetsSent", 0)) or 0)

    def received(self, kind: str) -> Entry:
        """Return `inbound-rtp` of the busiest stream of a kind."""
        return self.one("inbound-rtp", kind=kind)

    def sent(self, kind: str) -> Entry:
        """Return `outbound-rtp` of the busiest stream of a kind."""
        return self.one("outbound-rtp", kind=kind)

    def pair(self) -> tuple[Entry, Entry]:
        """Return the candidates, ours and theirs, between which media goes."""
        by_id = {entry["id"]: entry for entry in self.entries}
        pair = by_id[self.one("transport")["selectedCandidatePairId"]]
        return by_id[pair["localCandidateId"]], by_id[pair["remoteCandidateId"]]


async def stats(page: Page) -> Stats:
    """Ask the page's connection.

    Raises:
        AssertionError: None is connected.
    """
    entries = await page.evaluate(_STATS)
    assert entries is not None, "no connection"
    return Stats(tuple(entries))
