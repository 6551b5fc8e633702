"""Structured logs on standard error: JSON for machines, colours for a terminal. [IO]

    log = structlog.get_logger(); log.info("room.ended", room=shorten(room_id), reason="clinician")

An event is a short dotted name with codes, numbers and shortened ids; never a name, token, address or SDP. What might
slip through is caught by construction: `Private` values show `***`, an exception is told by `redact.describe` without
its message, and a record from a library (aiohttp, asyncio, SQLAlchemy) keeps its constant template but loses its
arguments, because these are where addresses, request lines and query parameters are.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from server.config import LogConfig
from server.redact import Private, describe

_MAX_TEMPLATE = 120
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def setup(config: LogConfig, out: TextIO | None = None) -> None:
    """Send our events and the libraries' warnings to standard error (or `out`), for the whole process."""
    out = out or sys.stderr
    as_json = config.format == "json" or (config.format == "auto" and not out.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            hide_private,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    # Libraries log what we would not (requests, parameters) below warning: they do not get to.
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


def hide_private(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: replace private values and the messages of exceptions, at any depth."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    for name, value in event.items():
        event[name] = _hidden(value)
    if isinstance(error, BaseException):
        event.update(describe(error))
    return event


def _hidden(value: Any) -> Any:
    if isinstance(value, Private):
        return "***"
    if isinstance(value, BaseException):
        return describe(value)
    if isinstance(value, dict):
        return {name: _hidden(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_hidden(inner) for inner in value]
    return value


class _LibraryHandler(logging.Handler):
    """Turns a standard library record into one of our events, without its arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        level = "error" if record.levelno >= logging.ERROR else "warning"
        template = str(record.msg).partition("\n")[0][:_MAX_TEMPLATE]
        getattr(structlog.get_logger(), level)("library", logger=record.name, template=template, exc_info=error)
