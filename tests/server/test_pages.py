"""The pages and their headers: who may frame them, what a clinic lends them, what a stranger learns (SECURITY 20, 21).

One server for all of them.
"""

import io
import json
import re
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest
import pytest_asyncio
from PIL import Image
from yarl import URL

from server.catalogue import Catalogue
from server.headers import PERMISSIONS_POLICY
from tests.live import Live, live_server

HTML = {"Accept": "text/html"}
PLAIN = {**HTML, "Accept-Encoding": "identity"}
HOSTS = ("https://dossier.example.org", "http://localhost:9000")
EVERY_ANSWER = {
    "Permissions-Policy": PERMISSIONS_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Server": "colloque",
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live() -> AsyncIterator[Live]:
    async with live_server(tenant={"origins": HOSTS, "colour": "#ffcc00", "language": "en"}) as live:
        yield live


async def fetch(live: Live, path: str, **headers: str) -> tuple[int, Mapping[str, str], str]:
    async with aiohttp.ClientSession() as stranger, stranger.get(live.origin + path, headers=headers) as answer:
        return answer.status, answer.headers, await answer.text()


def policy(headers: Mapping[str, str]) -> dict[str, list[str]]:
    directives = (directive.split() for directive in headers["Content-Security-Policy"].split(";"))
    return {name: sources for name, *sources in directives}


def page_data(html: str) -> dict:
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', html, re.DOTALL)
    assert found
    data: dict = json.loads(found[1])
    return data


PATHS = (
    "/", "/t/clinique/r", "/t/clinique/embed", "/t/nobody/r", "/t/nobody/embed", "/t/clinique/theme.css",
    "/t/clinique/logo", "/static/js/ui/room.js", "/static/nothing.js", "/static/", "/nowhere", "/ws", "/healthz",
    "/readyz", "/metrics", "/api/v1/nothing", "/api/v1/rooms",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_is_guarded(live, path):
    _, headers, _ = await fetch(live, path, **HTML)
    assert EVERY_ANSWER.items() <= dict(headers).items()
    rules = policy(headers)
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == ["'self'"]
    assert rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["connect-src"] == ["'self'", live.origin.replace("http", "ws", 1)]
    assert rules["frame-ancestors"] == ([*HOSTS] if path == "/t/clinique/embed" else ["'none'"])
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Opener-Policy"] == ("unsafe-none" if "embed" in path else "same-origin")
    assert headers["Cross-Origin-Resource-Policy"] == ("cross-origin" if "embed" in path else "same-origin")
    assert "Set-Cookie" not in headers
    assert "Strict-Transport-Security" not in headers, "only over https"
    assert "Access-Control-Allow-Origin" not in headers
    cached = path.startswith("/static/") or path.endswith("theme.css")
    assert headers["Cache-Control"] == ("no-cache" if cached else "no-store")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_other_methods_are_refused_and_guarded(live, method):
    async with (
        aiohttp.ClientSession() as stranger,
        stranger.request(method, f"{live.origin}/t/clinique/r", headers={"Origin": "https://evil"}) as answer,
    ):
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,HEAD"
        assert EVERY_ANSWER.items() <= dict(answer.headers).items()
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_no_inline_script_or_style_anywhere(live):
    for path in ("/", "/t/clinique/r", "/t/clinique/embed", "/nowhere"):
        _, _, html = await fetch(live, path, **HTML)
        for attributes, content in re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL):
            assert 'type="application/json"' in attributes or ("src=" in attributes and not content.strip())
        assert "<style" not in html
        assert not re.search(r"<[^>]+\s(style|on\w+)=", html)
        assert not re.search(r"(src|href)=\"(https?:)?//", html), "no third party"


async def test_a_tenant_lends_its_page_what_it_has(live):
    _, _, html = await fetch(live, "/t/clinique/embed")
    page = page_data(html)
    assert page["tenant"] == {
        "slug": "clinique", "name": "Clinique du Parc", "language": "en", "colour": "#ffcc00", "logo": "",
    }  # fmt: skip
    assert (page["embed"], page["origins"], page["language"]) == (True, [*HOSTS], "en")
    assert page["catalogue"] == dict(Catalogue.load().language("en"))
    _, _, html = await fetch(live, "/t/clinique/r")
    assert page_data(html)["embed"] is False


@pytest.mark.parametrize(
    ("query", "language"), [("", "en"), ("?lang=fr", "fr"), ("?lang=en", "en"), ("?lang=xx", "en")]
)
async def test_language_of_a_room(live, query, language):
    _, headers, html = await fetch(live, f"/t/clinique/r{query}")
    assert headers["Content-Language"] == page_data(html)["language"] == language
    assert f'<html lang="{language}"' in html


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "fr"),
        ("fr-CH, en;q=0.5", "fr"),
        ("en-US,fr;q=0.5", "en"),
        ("de, en;q=0.8", "en"),
        ("de", "fr"),
        (";,", "fr"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_language_of_a_stranger(live, path, accepted, language):
    _, headers, html = await fetch(live, path, **HTML, **{"Accept-Language": accepted})
    assert headers["Content-Language"] == language
    assert f'<html lang="{language}"' in html


async def test_home_says_what_this_is_and_nothing_else(live):
    status, _, html = await fetch(live, "/", **HTML)
    assert status == 200
    assert Catalogue.load().sentence("fr", "home.title") in html
    assert "<a " not in html and "clinique" not in html.lower()


async def test_an_unknown_tenant_answers_like_one_that_allows_nobody():
    async with live_server(tenant={"slug": "abcde", "name": "Colloque"}) as live:
        for path in ("r", "embed", "theme.css", "logo", "other", "r?lang=en", "r/more"):
            answers = []
            for slug in ("abcde", "xyzzy"):
                status, headers, body = await fetch(live, f"/t/{slug}/{path}", **PLAIN)
                told = {name: value for name, value in headers.items() if name != "Date"}
                answers.append((status, told, body.replace(slug, "*")))
            assert answers[0] == answers[1], path


@pytest.mark.parametrize("slug", ["UPPER", "a" * 64, "%3Cscript%3E", "a.b", "..", "%2e%2e"])
async def test_what_cannot_be_a_tenant(live, slug):
    status, _, html = await fetch(live, f"/t/{slug}/r", **HTML)
    assert status == 404
    assert slug not in html


async def test_logo(live):
    assert (await fetch(live, "/t/clinique/logo"))[0] == 404
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(picture, "PNG")
    tenant = await live.store.set_logo("clinique", picture.getvalue())
    try:
        _, _, html = await fetch(live, "/t/clinique/r")
        address = page_data(html)["tenant"]["logo"]
        assert address.startswith("/t/clinique/logo?v=") and tenant.logo_digest.startswith(address.partition("=")[2])
        async with live.api.get(address) as answer:
            assert await answer.read() == picture.getvalue()
            assert answer.content_type == "image/png"
            tag = answer.headers["ETag"]
            assert answer.headers["Cache-Control"] == "no-cache"
        async with live.api.get(address, headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", tag)
        async with live.api.get(address, headers={"If-None-Match": '"another"'}) as answer:
            assert answer.status == 200
    finally:
        await live.store.set_logo("clinique", None)


async def test_static_files(live):
    async with live.api.get("/static/js/ui/room.js") as answer:
        assert answer.status == 200
        assert answer.content_type in ("text/javascript", "application/javascript")
        assert answer.headers["Cache-Control"] == "no-cache"
        tag = answer.headers["ETag"]
    async with live.api.get("/static/js/ui/room.js", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
        assert EVERY_ANSWER.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("path", ["/static/../pyproject.toml", "/static/%2e%2e/templates/base.html", "/static/css/"])
async def test_nothing_outside_static(live, path):
    async with live.api.get(URL(path, encoded=True)) as answer:
        assert answer.status in (403, 404)


async def test_a_host_may_load_the_sdk(live):
    _, headers, _ = await fetch(live, "/static/sdk/colloque.js", Origin="https://anyone.example")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/nowhere", "/t/clinique/nowhere"])
async def test_errors_suit_who_asked(live, path):
    _, headers, html = await fetch(live, path, **HTML)
    assert headers["Content-Type"].startswith("text/html") and "<h1>" in html
    status, headers, text = await fetch(live, path, Accept="*/*")
    assert (status, headers["Content-Type"], text) == (404, "text/plain; charset=utf-8", "Not Found\n")


async def test_errors_of_the_api_are_problems(live):
    status, headers, body = await fetch(live, "/api/v1/no-such-thing", **HTML)
    assert status == 404
    assert headers["Content-Type"].startswith("application/problem+json")
    assert json.loads(body)["status"] == 404


async def test_theme(live):
    status, headers, sheet = await fetch(live, "/t/clinique/theme.css")
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert sheet == ":root { --brand: #ffcc00; }\n"
    _, _, sheet = await fetch(live, "/t/nobody/theme.css")
    assert sheet == "", "the colours of tokens.css stay"
