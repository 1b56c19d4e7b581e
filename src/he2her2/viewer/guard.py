"""Access control: the names of this machine or a token, requests from this page only, and the headers of answers.

A viewer that listens to this machine only is safe from the network, but any page that a user visits can send requests
to it, and a name of such a page can be made to point here (DNS rebinding): so the name in the request is checked. With
a token, that check is not needed: the cookie belongs to one name.
"""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

MAX_BODY_BYTES = 16 << 20
_MAX_PATH_BYTES = 4096  # names of two slides of 255 bytes, each as three characters
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_CHANGES = {"PUT", "POST", "DELETE", "PATCH"}
_ASK = "open the address that he2her2 view printed: it carries the token"
_AGAIN = f'<!doctype html><title>he2her2</title><p>{_ASK}</p><script src="static/again.js"></script>'
_HEAR = "the viewer listens to its own machine only; open it as localhost, through SSH from elsewhere"

_Scope: TypeAlias = MutableMapping[str, Any]
_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def is_this_machine(host: str) -> bool:
    """True for a name or address that leads to this machine alone, wherever it is asked for.

    Example:
        >>> is_this_machine("localhost"), is_this_machine("127.0.0.1"), is_this_machine("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Guard:
    """An ASGI application in front of another.

    Attributes:
        app: The other one.
        token: Asked of every request; None asks for the name of this machine instead.
        cookie: Name of the cookie that carries it.
    """

    app: _App
    token: str | None = None
    cookie: str = "he2her2"

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (self.app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, scope: _Scope) -> Response | None:
        """The answer to a request that may not pass; None for one that may."""
        headers = Headers(scope=scope)
        path = scope.get("raw_path") or scope["path"].encode()
        if len(path) > _MAX_PATH_BYTES or len(scope.get("query_string", b"")) > _MAX_PATH_BYTES:
            return _refused(414, "the address is too long")
        if self.token is None:
            if not is_this_machine(_name(headers.get("host", ""))):
                return _refused(421, _HEAR)
        elif (answer := self._without_token(scope, headers, self.token)) is not None:
            return answer
        if scope["method"] in _CHANGES and not _is_own(headers):
            return _refused(403, "changes are taken from the viewer's own page only")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES:
            return _refused(413, f"more than {MAX_BODY_BYTES >> 20} MB cannot be saved at once")
        return None

    def _without_token(self, scope: _Scope, headers: Headers, token: str) -> Response | None:
        """The answer to a request without the token, or that brings it for the first time; None where the cookie is."""
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and _equal(given, token):
            answer = RedirectResponse("./", 303)
            answer.set_cookie(self.cookie, token, httponly=True, samesite="strict")
            return answer
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if _equal(_cookie(headers, self.cookie), token) or (scheme.lower() == "bearer" and _equal(bearer, token)):
            return None
        if scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate" and _from_elsewhere(headers):
            return HTMLResponse(_AGAIN, 401)
        return _refused(401, _ASK)


def _from_elsewhere(headers: Headers) -> bool:
    """True of a link on another site's page, as in a mail: a browser keeps the cookie back, but not from our page."""
    return headers.get("sec-fetch-site") in ("cross-site", "same-site")


def _equal(given: str, token: str) -> bool:
    return compare_digest(given.encode(), token.encode())


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _name(host: str) -> str:
    """The name in a Host header, without its port and the brackets of an address."""
    name, _, port = host.rpartition(":")
    name = (name if name and port.isdecimal() else host).lower()
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _is_own(headers: Headers) -> bool:
    """True of a request that a page of this viewer sent, or a program that is no browser."""
    if not headers.get("content-type", "").startswith("application/json"):
        return False  # other types can be sent by any page without asking first
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    return (origin is None or origin.partition("://")[2] == headers.get("host")) and site in (None, "same-origin")


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status)
