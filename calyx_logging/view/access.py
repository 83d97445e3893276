"""Decide who may ask: only who knows the token, at the address that was printed, and not on behalf of another site.

A page of another site can make the browser send requests to this port, and a name that is made to resolve to 127.0.0.1
(DNS rebinding) even makes them look like the site's own. Such requests bear that site's Host or Origin, and know no
token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["HEADERS", "Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = (
    (b"cache-control", b"no-store"),
    (b"connection", b"close"),  # so that a connection lives no longer than its one request
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
"""Headers of every answer."""


class Guard:
    """An ASGI application that lets an inner one answer what may be asked.

    Args:
        inner: sees paths without the token.
        token: the first part of every path.
        port: that is listened on.
        warn: is told of faults of the inner one.
    """

    def __init__(self, inner: App, token: str, port: int, warn: Callable[[str], None] | None = None) -> None:
        self._inner = inner
        self._warn = warn or (lambda text: None)
        self._token = token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path = scope["raw_path"] if isinstance(scope.get("raw_path"), bytes) else scope["path"].encode()
        token, slash, rest = path.removeprefix(b"/").partition(b"/")
        refused = self._refusal(scope["method"], scope["headers"], token)
        if refused is None and slash != b"/":
            refused = 404, "The address ends with a slash."
        if refused is not None:
            await _answer(send, *refused)
            return
        inside = {**scope, "path": f"/{rest.decode('ascii', 'replace')}", "raw_path": b"/" + rest, "root_path": ""}

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self._inner(inside, receive, with_headers)
        except Exception as error:
            self._warn(f"a question could not be answered: {type(error).__name__}: {error}")
            raise

    def _refusal(self, method: str, headers: list[tuple[bytes, bytes]], token: bytes) -> tuple[int, str] | None:
        """Return the status and the text with which a request is refused; None if it may be answered."""
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "This server answers to 127.0.0.1 and localhost alone."
        if any(value.lower() not in self._origins for name, value in headers if name == b"origin"):
            return 403, "Another site's page may not ask this server."
        values = {name: value.lower() for name, value in headers if name.startswith(b"sec-fetch-")}
        is_link = (values.get(b"sec-fetch-mode"), values.get(b"sec-fetch-dest")) == (b"navigate", b"document")
        if values.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and not is_link:
            return 403, "Another site's page may not ask this server."
        if not hmac.compare_digest(token, self._token):
            return 403, "Open the whole address that calyx-telemetry view printed: it has a token in it."
        if method not in ("GET", "HEAD"):
            return 405, "This server only reads."
        return None


async def _answer(send: Send, status: int, text: str) -> None:
    data = f"{text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(data)).encode()), *HEADERS]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
