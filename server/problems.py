"""Refusals of the REST API, and of WHIP and WHEP, as problem documents. [IO]

Spec: RFC 9457. `type` is `urn:colloque:problem:<code>`; the codes are the contract, the sentences are for developers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import hdrs, web

from server.errors import ApiError
from server.openapi import PROBLEM_TYPE
from server.redact import describe
from server.resources import Problem
from server.store import DATABASE_ERRORS

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = structlog.get_logger()

_PLACES = ("/api/", "/whip/", "/whep/")

_CODES = {
    400: ("bad_request", "the request is malformed"),
    404: ("not_found", "there is no such thing here, or it is not yours"),
    405: ("method_not_allowed", "this address does not take this method; see Allow"),
    408: ("timeout", "the body took too long to arrive"),
    413: ("too_large", "the body is too large"),
    415: ("unsupported_media_type", "the body has a Content-Type or Content-Encoding that is not taken"),
    417: ("expectation_failed", "the only expectation met is 100-continue"),
}
"""What aiohttp itself refuses."""


class Refusal(ApiError):
    """An ApiError whose problem document says where: the `member` that is wrong, or the `room` in the way."""

    def __init__(self, status: int, code: str, detail: str, *, member: str = "", room: str = "") -> None:
        super().__init__(status, code, detail)
        self.member = member
        self.room = room


def problem(error: ApiError) -> web.Response:
    """Return the problem document of a refusal."""
    document = Problem(
        type=f"urn:colloque:problem:{error.code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        member=getattr(error, "member", ""),
        room=getattr(error, "room", ""),
    )
    response = web.Response(body=msgspec.json.encode(document), status=error.status, content_type=PROBLEM_TYPE)
    if error.status == HTTPStatus.UNAUTHORIZED:
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="colloque"'
    elif error.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        response.headers[hdrs.RETRY_AFTER] = "5"
    return response


@web.middleware
async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer every failure of a program's request with a problem document; everything else passes through."""
    if not request.path.startswith(_PLACES):
        return await handler(request)
    try:
        return await handler(request)
    except ApiError as error:
        return problem(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code, detail = _CODES.get(error.status, ("refused", HTTPStatus(error.status).phrase))
        response = problem(ApiError(error.status, code, detail))
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        if error.keep_alive is False:
            response.force_close()
        return response
    except DATABASE_ERRORS as error:
        _log.error("api.database_failed", **describe(error))
        return problem(ApiError(503, "unavailable", "the database does not answer: try again in a few seconds"))
    except Exception as error:
        _log.error("api.failed", **describe(error))
        return problem(ApiError(500, "internal", "this is our fault, and in our log: try again, then tell us"))
