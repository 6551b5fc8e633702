"""The pages: consultation room, embedded room, errors, and what belongs to a clinic (colour, logo). [IO]

    /t/<tenant>/r, /t/<tenant>/embed    room.html; the secret stays in the fragment and never comes here
    /t/<tenant>/theme.css, /logo        the clinic's colour and picture
    /catalogue/<language>.json          every sentence of the pages, for changing the language without leaving the page
    /                                   what this is, and nothing else

A tenant that does not exist is answered like one that allows nobody to embed and has neither name, colour nor logo:
same status, headers and bytes but for the name in the path (SECURITY row 20).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from aiohttp import ETag, hdrs, web

from server import __version__
from server.catalogue import LANGUAGES, Catalogue
from server.headers import embed_headers
from server.store import Store, Tenant

WEB = Path(__file__).resolve().parents[2] / "web"
_DEFAULT_NAME = "Colloque"
"""What stands where a clinic's name would."""
_SLUG = "[a-z0-9-]{1,63}"
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
"""What may be written into frame-ancestors; the API checks more when the tenant is made."""


class Pages:
    """Renders everything that is seen.

    Args:
        origin: Our own, for the security policy of the embedded page.
    """

    def __init__(self, origin: str, store: Store, catalogue: Catalogue) -> None:
        self._origin = origin
        self._store = store
        self._catalogue = catalogue
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(WEB / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes, for `Application.add_routes`."""
        tenant = f"/t/{{tenant:{_SLUG}}}"
        return [
            web.get("/", self.home),
            web.get("/catalogue/{language:fr|en}.json", self.words),
            web.get(f"{tenant}/r", self.room),
            web.get(f"{tenant}/embed", self.embed),
            web.get(f"{tenant}/theme.css", self.theme),
            web.get(f"{tenant}/logo", self.logo),
        ]

    async def home(self, request: web.Request) -> web.Response:
        """GET /: says what this is to somebody who arrived without a link."""
        return self._page("home.html", self._context(_nobody(""), self._visitor_language(request)))

    async def room(self, request: web.Request) -> web.Response:
        """GET /t/<tenant>/r: the consultation room, as a page of its own."""
        return await self._room(request, embed=False)

    async def embed(self, request: web.Request) -> web.Response:
        """GET /t/<tenant>/embed: the consultation room, in a frame of the clinic's own software."""
        return await self._room(request, embed=True)

    async def _room(self, request: web.Request, *, embed: bool) -> web.Response:
        tenant = await self._tenant(request)
        context = self._context(tenant, self._tenant_language(request, tenant), embed=embed)
        response = self._page("room.html", context)
        if embed:
            response.headers.update(embed_headers(self._origin, context["page"]["origins"]))
        return response

    async def words(self, request: web.Request) -> web.StreamResponse:
        """GET /catalogue/<language>.json: what the page needs to change its language in the middle of a call."""
        catalogue = self._catalogue.language(request.match_info["language"])
        return _revalidated(request, msgspec.json.encode(dict(catalogue)), "application/json")

    async def theme(self, request: web.Request) -> web.StreamResponse:
        """GET /t/<tenant>/theme.css: the clinic's colour as `--brand`; tokens.css derives what can be read from it."""
        tenant = await self._tenant(request)
        sheet = f":root {{ --brand: {tenant.colour}; }}\n" if tenant.colour else ""
        return _revalidated(request, sheet.encode(), "text/css; charset=utf-8")

    async def logo(self, request: web.Request) -> web.StreamResponse:
        """GET /t/<tenant>/logo: the clinic's logo, as checked and re-encoded when it was uploaded."""
        png = await self._store.logo(request.match_info["tenant"])
        if png is None:
            raise web.HTTPNotFound
        return _revalidated(request, png, "image/png")

    def error(self, request: web.Request, status: int) -> web.Response:
        """Return the page for a status, in the visitor's language: ours to mend, or a wrong address."""
        context = self._context(_nobody(""), self._visitor_language(request))
        return self._page("error.html", context | {"code": "internal" if status >= 500 else "not_found"}, status)

    async def _tenant(self, request: web.Request) -> Tenant:
        slug = request.match_info["tenant"]
        return await self._store.tenant(slug) or _nobody(slug)

    def _tenant_language(self, request: web.Request, tenant: Tenant) -> str:
        asked = request.query.get("lang", "")
        return asked if asked in LANGUAGES else tenant.language

    def _visitor_language(self, request: web.Request) -> str:
        """`?lang=`, or the first of the browser's languages that we speak; French otherwise."""
        accepted = (part.strip()[:2].lower() for part in request.headers.get(hdrs.ACCEPT_LANGUAGE, "").split(","))
        return next((tag for tag in (request.query.get("lang", ""), *accepted) if tag in LANGUAGES), LANGUAGES[0])

    def _context(self, tenant: Tenant, language: str, *, embed: bool = False) -> dict[str, Any]:
        """Return what the templates get."""
        page = {
            "tenant": {
                "slug": tenant.slug,
                "name": tenant.name,
                "language": tenant.language,
                "colour": tenant.colour,
                "logo": f"/t/{tenant.slug}/logo?v={tenant.logo_digest[:16]}" if tenant.logo_digest else "",
            },
            "embed": embed,
            "origins": [origin for origin in tenant.origins if _ORIGIN.fullmatch(origin)],
            "language": language,
            "catalogue": dict(self._catalogue.language(language)),
            "version": __version__,
        }
        return {
            "page": page,
            "page_json": _script_data(page),
            "t": lambda key, **values: self._catalogue.sentence(language, key, **values),
        }

    def _page(self, template: str, context: Mapping[str, Any], status: int = 200) -> web.Response:
        text = self._templates.get_template(template).render(context)
        response = web.Response(status=status, text=text, content_type="text/html")
        response.headers[hdrs.CONTENT_LANGUAGE] = context["page"]["language"]
        response.headers[hdrs.VARY] = f"{hdrs.ACCEPT_LANGUAGE}, {hdrs.ACCEPT_ENCODING}"
        response.enable_compression()  # nothing in a page is secret, so its length may depend on what the path said
        return response


def _nobody(slug: str) -> Tenant:
    """The tenant that is not there: no name, no colour, no origin."""
    return Tenant(slug=slug, name=_DEFAULT_NAME)


def _script_data(value: object) -> str:
    """Return JSON that is safe inside a `<script type="application/json">`: nothing in it can close the element."""
    text = msgspec.json.encode(value).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _revalidated(request: web.Request, body: bytes, content_type: str) -> web.StreamResponse:
    """Answer 200 with an entity tag, or 304 to the browser that has it already."""
    tag = ETag(hashlib.sha256(body).hexdigest()[:32])
    known = request.if_none_match or ()
    if any(candidate.value in (tag.value, "*") for candidate in known):
        response: web.StreamResponse = web.Response(status=304)
    else:
        response = web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
    response.etag = tag
    response.headers[hdrs.CACHE_CONTROL] = "no-cache"
    return response
