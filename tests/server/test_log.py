"""Logs tell what happened and where, and nothing that was said or sent (SECURITY row 22)."""

import io
import json
import logging
from typing import Any

import pytest
import structlog

from server import log
from server.config import LogConfig
from server.ids import digest
from server.redact import Private, describe

CANARY = "canary-in-a-message"


@pytest.fixture
def out():
    """Set up JSON logs into a file of ours."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    out = io.StringIO()
    log.setup(LogConfig(level="debug", format="json"), out)
    yield out
    structlog.reset_defaults()
    root.handlers[:] = before[1]
    root.setLevel(before[0])


@pytest.fixture
def lines(out):
    """Return a function that gives the events written so far."""
    return lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def failure() -> Exception:
    """An error that came through our code, with a cause, both quoting what they choked on."""
    try:
        try:
            digest(CANARY.encode())  # type: ignore[arg-type]
        except AttributeError as error:
            raise ValueError(f"cannot digest {CANARY}") from error
    except ValueError as error:
        return error
    raise AssertionError


def test_private_values_are_hidden_at_any_depth(lines):
    secret = Private(CANARY)
    structlog.get_logger().info("a", name=secret, people=[secret, {"name": secret}], text=f"{secret} {secret!r}")
    (event,) = lines()
    assert event["name"] == "***"
    assert event["people"] == ["***", {"name": "***"}]
    assert event["text"] == "*** ***"


@pytest.mark.parametrize("how", ["exc_info", "value", "list"])
def test_an_exception_is_its_type_and_place(lines, how):
    error = failure()
    given = {"exc_info": error} if how == "exc_info" else {"cause": error if how == "value" else [error]}
    structlog.get_logger().error("failed", **given)
    (event,) = lines()
    assert "ValueError < AttributeError" in json.dumps(event)
    assert CANARY not in json.dumps(event)


def test_current_exception(lines):
    try:
        raise KeyError(CANARY)
    except KeyError:
        structlog.get_logger().exception("failed")
    (event,) = lines()
    assert event["error"] == "KeyError"
    assert CANARY not in json.dumps(event)


def files(told: dict[str, Any]) -> list[str]:
    return [place.partition(":")[0] for place in told["at"]]


def test_describe_names_our_code_first():
    try:
        digest(CANARY.encode())  # type: ignore[arg-type]
    except AttributeError as error:
        told = describe(error)
    assert told["error"] == "AttributeError"
    assert files(told) == ["server/ids.py"]

    try:
        json.loads(CANARY)
    except ValueError as error:
        told = describe(error)
    assert files(told) == ["json/decoder.py"]


def test_causes_that_were_suppressed_are_not_told():
    try:
        try:
            raise KeyError(CANARY)
        except KeyError:
            raise ValueError(CANARY) from None
    except ValueError as error:
        assert describe(error)["error"] == "ValueError"


def test_a_library_keeps_its_template_and_loses_its_arguments(lines):
    logging.getLogger("aiohttp.server").error("Error handling request from %s", CANARY, exc_info=failure())
    logging.getLogger("asyncio").warning("first line\n" + CANARY)
    logging.getLogger("sqlalchemy.engine").info("SELECT %s", CANARY)
    failed, warned = lines()
    assert failed["template"] == "Error handling request from %s"
    assert failed["error"] == "ValueError < AttributeError"
    assert (warned["level"], warned["template"], warned["logger"]) == ("warning", "first line", "asyncio")
    assert CANARY not in json.dumps([failed, warned])


def test_level_and_console(out):
    log.setup(LogConfig(level="warning", format="console"), out)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("heard", who=Private(CANARY), exc_info=failure())
    text = out.getvalue()
    assert "heard" in text and "quiet" not in text and CANARY not in text


@pytest.mark.parametrize(("terminal", "is_json"), [(True, False), (False, True)])
def test_format_follows_the_terminal(out, monkeypatch, terminal, is_json):
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    log.setup(LogConfig(), out)
    structlog.get_logger().info("a")
    assert out.getvalue().startswith("{") == is_json
