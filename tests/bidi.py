"""A small WebDriver BiDi client: enough to drive Debian's Firefox as the tests drive Chromium. [IO]

Spec: https://www.w3.org/TR/webdriver-bidi/. Playwright drives Chromium, but needs a Firefox newer than Debian's; its
method names are kept here, so that a test takes a page of either browser. Times are in milliseconds, as there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

DEFAULT_TIMEOUT_MS = 30_000

_EVALUATE = """async text => {
  const value = (EXPRESSION);
  return JSON.stringify(await (typeof value === 'function' ? value(JSON.parse(text)) : value)) ?? 'null';
}"""
"""The expression is written in, not evaluated from a string: the pages' security policy has no `unsafe-eval`."""


class BidiError(Exception):
    """The browser refused a command, or a script of the test threw."""


class Connection:
    """One BiDi session: commands out, their answers back, in any order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Carry out one command.

        Raises:
            BidiError: The browser refused it, or is gone.
        """
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        if self._reader.done():
            raise BidiError(f"{method}: the browser is gone")
        await self._socket.send_json({"id": number, "method": method, "params": params})
        reply = await answer
        if reply["type"] == "error":
            raise BidiError(f"{method}: {reply['error']}: {reply['message']}")
        result: dict[str, Any] = reply["result"]
        return result

    async def _read(self) -> None:
        async for message in self._socket:
            reply = json.loads(message.data)
            waiting = self._answers.pop(reply.get("id"), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(BidiError("the browser is gone"))


class Page:
    """One browsing context: a tab, or a frame inside one."""

    def __init__(self, connection: Connection, context: str) -> None:
        self._connection = connection
        self._context = context

    async def goto(self, url: str) -> None:
        """Load an address and wait for its `load` event; a change of fragment only is done at once."""
        await self._connection.send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def reload(self) -> None:
        """Load the same page again."""
        await self._connection.send("browsingContext.reload", context=self._context, wait="complete")

    async def close(self) -> None:
        """Close the tab."""
        await self._connection.send("browsingContext.close", context=self._context)

    async def evaluate(self, expression: str, arg: Any = None) -> Any:
        """Evaluate an expression in the page; if it is a function, call it with `arg`. Values cross as JSON.

        Raises:
            BidiError: It threw.
        """
        return json.loads(await self._call(_EVALUATE.replace("EXPRESSION", expression, 1), json.dumps(arg)))

    async def wait_for_function(self, expression: str, *, arg: Any = None, timeout: float = DEFAULT_TIMEOUT_MS) -> Any:
        """Wait until the expression is truthy; return its value. Write a function: Playwright takes nothing else here.

        Raises:
            TimeoutError: It never was.
        """
        deadline = asyncio.get_running_loop().time() + timeout / 1000
        while not (value := await self.evaluate(expression, arg)):
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"not within {timeout} ms: {expression} with {arg!r}")
            await asyncio.sleep(0.05)
        return value

    async def wait_for_selector(self, selector: str, *, timeout: float = DEFAULT_TIMEOUT_MS) -> None:
        """Wait until an element is there and visible.

        Raises:
            TimeoutError: It never was.
        """
        await self.wait_for_function(
            "s => [...document.querySelectorAll(s)].some(e => e.checkVisibility() && e.getClientRects().length > 0)",
            arg=selector,
            timeout=timeout,
        )

    async def click(self, selector: str, *, timeout: float = DEFAULT_TIMEOUT_MS) -> None:
        """Click the middle of an element with the mouse, as a person does, once it is there and enabled.

        Raises:
            TimeoutError: No such element was visible and enabled in time.
        """
        await self.wait_for_selector(f"{selector}:not(:disabled)", timeout=timeout)
        element = await self._element(selector)
        origin = {"type": "element", "element": element}
        steps = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": steps}
        await self._connection.send("input.performActions", context=self._context, actions=[mouse])

    async def fill(self, selector: str, text: str) -> None:
        """Put text into a form field, telling the page as typing would."""
        await self.wait_for_selector(selector)
        await self.evaluate(
            "([s, text]) => { const e = document.querySelector(s); e.focus(); e.value = text;"
            " for (const type of ['input', 'change']) e.dispatchEvent(new Event(type, {bubbles: true})) }",
            [selector, text],
        )

    async def inner_text(self, selector: str) -> str:
        """Return the text of an element as shown."""
        return str(await self.evaluate("s => document.querySelector(s).innerText", selector))

    async def child(self) -> Page:
        """Return the first frame inside this page.

        Raises:
            TimeoutError: There was none within 10 s.
        """
        for _ in range(200):
            tree = await self._connection.send("browsingContext.getTree", root=self._context)
            if children := tree["contexts"][0]["children"]:
                return Page(self._connection, children[0]["context"])
            await asyncio.sleep(0.05)
        raise TimeoutError("no frame in the page")

    async def _element(self, selector: str) -> dict[str, str]:
        result = await self._connection.send(
            "script.callFunction",
            functionDeclaration="s => { const e = [...document.querySelectorAll(s)].find(e => e.checkVisibility());"
            " e.scrollIntoView({block: 'center', behavior: 'instant'}); return e }",
            arguments=[{"type": "string", "value": selector}],
            target={"context": self._context},
            awaitPromise=False,
        )
        if result["type"] != "success":
            raise BidiError(result["exceptionDetails"]["text"])
        return {"sharedId": result["result"]["sharedId"]}

    async def _call(self, function: str, text: str) -> str:
        result = await self._connection.send(
            "script.callFunction",
            functionDeclaration=function,
            arguments=[{"type": "string", "value": text}],
            target={"context": self._context},
            awaitPromise=True,
        )
        if result["type"] != "success":
            raise BidiError(result["exceptionDetails"]["text"])
        return str(result["result"]["value"])


class Browser:
    """A running browser with a BiDi session."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def new_page(self) -> Page:
        """Open a tab."""
        created = await self._connection.send("browsingContext.create", type="tab")
        return Page(self._connection, created["context"])

    async def close(self) -> None:
        """Quit."""
        with suppress(BidiError):
            await self._connection.send("browser.close")


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Browser]:
    """Open a session with a browser that listens at `url` and close the browser afterwards.

    Args:
        url: What it printed, `ws://127.0.0.1:PORT`.
    """
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/session", max_msg_size=0) as socket:
        connection = Connection(socket)
        await connection.send("session.new", capabilities={})
        browser = Browser(connection)
        try:
            yield browser
        finally:
            await browser.close()
