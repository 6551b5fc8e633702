"""The OpenAPI document: valid, complete, and true of the running server (schemathesis)."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from server import api
from server.openapi import document
from server.records import SigningKey
from server.resources import Problem
from tests.live import ROOT, Live

CONFIG = """
# Found in the database, not drawn at random.
[parameters]
"path.room" = "{room}"
"path.link" = "{link}"
"path.kid" = "{kid}"

# What fits its schema may still be unusable (an expiry in the past), or come to an ended room.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 410, 422]
"""


class NoRooms:
    def end_room(self, room_id: str, by: str) -> None: ...
    def drop_link(self, link_id: str, code: str) -> None: ...
    def counts(self, room_id: str) -> dict[str, int]:
        return {}

    def hold_relayed(self, room_id: str, wanted: bool) -> str:
        return "not_live"


@pytest.fixture
def host_api() -> api.HostApi:
    return api.HostApi(None, NoRooms(), "https://video.example.org")  # type: ignore[arg-type]


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        here = {node["$ref"]} if "$ref" in node else set()
        return here.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_the_document_describes_every_route(host_api: api.HostApi):
    described = document(host_api.operations, api.ROOT, "")
    routes = {(route.method.lower(), route.path) for route in host_api.routes()} - {("get", "/api/v1/openapi.json")}
    assert {(method, path) for path, item in described["paths"].items() for method in item} == routes
    operations = [operation for item in described["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all("401" in operation["responses"] for operation in operations)
    schemas = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references(described["paths"]) | references(described["components"]) == schemas


def test_every_refusal_in_the_code_is_documented(host_api: api.HostApi):
    """Codes are read from the source: one that is raised anywhere is in the document, and the other way round."""
    source = (ROOT / "server/api.py").read_text()
    raised = {
        (int(status), code) for status, code in re.findall(r"(?:Refusal|ApiError)\(\s*(\d{3}),\s*\"(\w+)\"", source)
    } | {(409, "kid_taken")}
    documented = {
        (status, code)
        for operation in host_api.operations
        for status, codes in operation.problems.items()
        for code in codes
    }
    by_the_server = {(503, "unavailable"), (408, "timeout")}
    assert raised == documented - by_the_server


def test_the_schema_says_what_is_refused(host_api: api.HostApi):
    schemas = document(host_api.operations, api.ROOT, "")["components"]["schemas"]
    assert schemas["NewLink"]["required"] == ["role"]
    assert schemas["NewLink"]["additionalProperties"] is False
    assert schemas["NewLink"]["properties"]["name"]["maxLength"] == 80
    assert schemas["NewLink"]["properties"]["singleUse"]["default"] is True
    assert set(schemas["Problem"]["required"]) == {"type", "title", "status", "detail", "code"}
    assert Problem.__doc__ and schemas["Problem"]["description"].startswith("Why a request")


@pytest.mark.timeout(180)
async def test_the_server_does_what_the_document_says(live: Live, tmp_path: Path):
    """Valid, invalid and chained requests by the hundred: no 500, no undocumented status, header, type or shape."""
    room = await live.room()
    link, _ = await live.store.mint_link(room, "patient")
    await live.store.add_signing_key(SigningKey(live.tenant.slug, "key", "EdDSA", "PEM", room.created_at))
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(room=room.id, link=link.id, kid="key"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
        "run", f"{live.origin}/api/v1/openapi.json",
        "--header", f"Authorization: Bearer {live.key}",
        "--max-examples", "5", "--generation-deterministic",
        "--no-color",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
    assert "Tested: 18" in output.decode()
    log = live.log
    assert not [event for event in map(json.loads, log.splitlines()) if event["level"] == "error"], log[-3000:]
