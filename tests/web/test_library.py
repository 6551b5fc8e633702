"""The browser library without a browser: its unit tests under node, and its types.

Both need what `make test` installs: node 18 or later, and the TypeScript of package.json (`npm ci`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from server.signalling.messages import VERSION

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 120


def _program(name: str, how: str) -> str:
    found = shutil.which(name, path=os.pathsep.join((str(ROOT / "node_modules" / ".bin"), os.environ.get("PATH", ""))))
    assert found is not None, f"{name} is missing: {how}"
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(command[:3])} failed:\n{done.stdout[-8000:]}{done.stderr[-2000:]}"


def test_unit_tests() -> None:
    node = _program("node", "apt install nodejs")
    files = sorted(str(path) for path in (ROOT / "tests" / "web" / "unit").glob("*.test.js"))
    assert files, "no unit tests were found"
    _run(node, "--test", *files)


def test_types() -> None:
    _run(_program("tsc", "npm ci"), "-p", "web")


def test_version_is_the_servers() -> None:
    source = (ROOT / "web" / "static" / "js" / "rtc" / "signalling.js").read_text()
    found = re.search(r"^export const PROTOCOL_VERSION = (\d+);$", source, re.MULTILINE)
    assert found is not None
    assert int(found[1]) == VERSION


def test_library_knows_no_dom() -> None:
    """The library may use WebRTC, WebSocket and Web Audio, never the page (STYLE.md section 10, rule 15)."""
    for path in sorted((ROOT / "web" / "static" / "js" / "rtc").glob("*.js")):
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)
        used = re.findall(r"\b(?:document|window|localStorage|sessionStorage|history|location)\b\s*[.\[]", code)
        assert not used, f"{path.name} uses {used}"
