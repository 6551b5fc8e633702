"""From a table of operations to an OpenAPI 3.1 document.

The same table makes the routes (`api.py`), and the same structs check the bodies, so the document cannot say anything
else than what the server does. The schemas are msgspec's, JSON Schema 2020-12, as OpenAPI 3.1 wants them.

Spec: OpenAPI 3.1.1, RFC 9457 (problem documents).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from server import __version__
from server.resources import Identity, KeyId, PageQuery, Problem

_REF = "#/components/schemas/{name}"
PROBLEM_TYPE = "application/problem+json"

_PARAMETERS: dict[str, tuple[object, str]] = {
    "room": (Identity, "The room's id."),
    "link": (Identity, "The link's id."),
    "kid": (KeyId, "The key's `kid`."),
}
"""What stands in braces in a path."""


@dataclass(frozen=True)
class Operation:
    """One method of one path: its route, its checks and its description."""

    method: str
    path: str
    """Below the root of the API, with parameters in braces."""
    handler: Callable[..., Awaitable[Any]]
    """Called with `tenant`, the parameters of the path, and `query` and `body` where there are such, all by keyword."""
    summary: str
    answer: type[msgspec.Struct] | None
    """Of the body; None for an empty one."""
    status: int = 200
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    media: tuple[str, ...] = ()
    """Instead of a JSON body: the types of file that are taken."""
    location: str = ""
    """Of what was made, with members of the answer in braces."""
    refusals: tuple[tuple[int, str], ...] = ()
    """Statuses and codes beyond those that follow from the rest."""
    description: str = ""

    @property
    def parameters(self) -> list[str]:
        """The names in braces in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def problems(self) -> dict[int, list[str]]:
        """Every status that is a problem, and its codes."""
        found = {401: ["unauthorized"], 503: ["unavailable"]}
        if self.query or self.body:
            found[400] = ["bad_request"]
        if self.parameters:
            found[404] = ["not_found"]
        if self.body or self.media:
            found |= {408: ["timeout"], 413: ["too_large"], 415: ["unsupported_media_type"]}
        for status, code in self.refusals:
            found.setdefault(status, []).append(code)
        return dict(sorted(found.items()))


def document(operations: Sequence[Operation], root: str, description: str) -> dict[str, Any]:
    """Describe the operations.

    Args:
        operations: The table.
        root: Path under which all of them are, `/api/v1`.
        description: Of the whole, in CommonMark.
    """
    structs: list[Any] = [Problem, PageQuery]
    for operation in operations:
        structs += [kind for kind in (operation.answer, operation.body, operation.query) if kind is not None]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(root + operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    for kind in {operation.query for operation in operations} | {PageQuery}:
        schemas.pop(kind.__name__ if kind else "", None)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Colloque",
            "version": __version__,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{"apiKey": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of the tenant: clq_..."}
            },
        },
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1]],
    }
    if operation.description:
        described["description"] = operation.description
    parameters = [_path_parameter(name) for name in operation.parameters]
    if operation.query:
        members = schemas[operation.query.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in members.items()]
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        content = {"application/json": {"schema": _reference(operation.body)}}
        described["requestBody"] = {"required": True, "content": content}
    elif operation.media:
        described["requestBody"] = {"required": True, "content": {media: {} for media in operation.media}}
    described["responses"] = {str(operation.status): _success(operation)} | {
        str(status): _problem(status, codes) for status, codes in operation.problems.items()
    }
    return described


def _path_parameter(name: str) -> dict[str, Any]:
    kind, description = _PARAMETERS[name]
    schema = {key: value for key, value in msgspec.json.schema(kind).items() if key != "description"}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _success(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.answer:
        described["content"] = {"application/json": {"schema": _reference(operation.answer)}}
    if operation.location:
        described["headers"] = {"Location": {"description": "Path of what was made.", "schema": {"type": "string"}}}
    return described


def _problem(status: int, codes: Sequence[str]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "content": {PROBLEM_TYPE: {"schema": _reference(Problem)}},
    }
    if status == HTTPStatus.UNAUTHORIZED:
        described["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
    return described


def _reference(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
