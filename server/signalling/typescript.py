"""The browser's types, from the message structs: JSON Schema (by msgspec) -> TypeScript declarations.

`python -m server.signalling.messages > web/static/js/rtc/messages.d.ts`; `tests/server/test_messages.py` fails when
that file is not what this module makes.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec

from server.signalling import messages

_HEADER = """\
// The signalling messages, one type each. Made by `python -m server.signalling.messages`: do not edit.
// What they mean and in which order they come: server/signalling/PROTOCOL.md.
"""

_ALIASES = {
    "Language": 'SetLanguage["language"]',
    "Role": 'Peer["role"]',
    "State": 'Welcome["state"]',
    "Connection": 'Peer["connection"]',
    "TrackState": 'Peer["microphone"]',
    "Path": 'Move["to"]',
    "MoveReason": 'Move["reason"]',
    "Rid": 'Encode["rids"][number]',
}
"""The `Literal` types of messages.py, which JSON Schema has no names for."""


def declarations() -> str:
    """Return the whole of `messages.d.ts`."""
    unions = {"ClientMessage": get_args(messages.ClientMessage), "ServerMessage": get_args(messages.ServerMessage)}
    _, components = msgspec.json.schema_components(
        [kind for kinds in unions.values() for kind in kinds], ref_template="{name}"
    )
    blocks = [_declaration(name, schema) for name, schema in components.items()]
    for name, kinds in unions.items():
        blocks.append(f"export type {name} =\n" + "\n".join(f"  | {kind.__name__}" for kind in kinds) + ";\n")
    blocks.append("".join(f"export type {name} = {place};\n" for name, place in _ALIASES.items()))
    return _HEADER + "\n" + "\n".join(blocks)


def _declaration(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    lines = [_comment(schema.get("description", "")), f"export type {name} = {{\n"]
    for member, value in schema["properties"].items():
        # The `type` that tells messages apart is always there.
        optional = "" if member in required else "?"
        lines.append(f"  {member}{optional}: {_type(value)};\n")
    return "".join(lines) + "};\n"


def _comment(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    if len(lines) == 1:
        return f"/** {lines[0]} */\n"
    return "/**\n" + "".join(f" * {line}".rstrip() + "\n" for line in lines) + " */\n"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kind = schema["type"]
    if kind == "array":
        return f"Array<{_type(schema['items'])}>"
    return {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}[kind]
