"""The server alone in the lab: pages over https and the media server, without TURN, coturn or nginx. [IO]"""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

from tests.interop.authority import Authority
from tests.interop.deployment import PAGES, Deployment
from tests.interop.natlab import PUBLIC_ADDRESS, Lab

_TOKEN = "of-the-lab"


class Alone(Deployment):
    """As `Deployment`, with nothing but our server."""

    def _start(self, authority: Authority) -> None:
        pages = authority.issue(PAGES)
        self._serve(f"""
            [http]
            host = "{PUBLIC_ADDRESS}"
            port = 443
            public_url = "https://{PAGES}"
            tls_cert = "{pages.chain}"
            tls_key = "{pages.key}"
            metrics_token = "{_TOKEN}"
        """)
        self._wait_for(443)

    def metrics(self) -> dict[str, float]:
        """Return /metrics: each sample by its name, labels included."""
        context = ssl.create_default_context()
        context.check_hostname = False  # asked by its address; who it is does not matter here
        context.verify_mode = ssl.CERT_NONE
        with self.lab.public.entered():
            connection = http.client.HTTPSConnection(PUBLIC_ADDRESS, timeout=5, context=context)
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {_TOKEN}", "Host": PAGES})
            text = connection.getresponse().read().decode()
            connection.close()
        return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Alone]:
    """Build a lab and the server in it, and take both down."""
    with Lab() as lab:
        yield Alone(lab, folder)
