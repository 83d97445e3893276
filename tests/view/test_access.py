"""The guard decides from the head of one request whether it may be answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from calyx_logging.view.access import HEADERS, Guard

TOKEN = "t" * 32
HOST = (b"host", b"127.0.0.1:8000")


def asked(path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> tuple[int, dict[bytes, bytes], list[str]]:
    """Status and headers of the answer, and the paths that came through."""
    seen: list[str] = []
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": list(headers)}
    asyncio.run(Guard(inner, TOKEN, 8000)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), seen


@pytest.mark.parametrize("host", [b"127.0.0.1:8000", b"localhost:8000", b"LOCALHOST:8000"])
def test_who_knows_the_token_is_answered(host: bytes) -> None:
    status, headers, seen = asked(f"/{TOKEN}/events", (b"host", host))
    assert (status, seen) == (200, ["/events"])
    assert set(HEADERS) <= set(headers.items())


@pytest.mark.parametrize(
    "host",
    [
        *(b"evil.example", b"evil.example:8000", b"127.0.0.1", b"127.0.0.1:8001", b"127.0.0.1.evil.example:8000"),
        *(b"[::1]:8000", b"0.0.0.0:8000", b"localhost.evil.example:8000", b"127.0.0.1:8000.evil.example", b""),
        *(b"localhost:8000@evil.example", b"2130706433:8000", b"127.1:8000"),
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(host: bytes) -> None:
    """In DNS rebinding the request names another host, whatever that resolves to."""
    assert asked(f"/{TOKEN}/", (b"host", host))[::2] == (421, [])


def test_no_host_or_two_are_refused() -> None:
    assert asked(f"/{TOKEN}/")[::2] == (421, [])
    assert asked(f"/{TOKEN}/", HOST, (b"host", b"evil.example"))[::2] == (421, [])


@pytest.mark.parametrize(
    "origin", [b"http://evil.example", b"null", b"https://127.0.0.1:8000", b"http://127.0.0.1:8001", b"file://", b""]
)
def test_another_site_is_refused_even_with_the_token(origin: bytes) -> None:
    assert asked(f"/{TOKEN}/live", HOST, (b"origin", origin))[::2] == (403, [])


def test_its_own_origin_is_answered() -> None:
    assert asked(f"/{TOKEN}/live", HOST, (b"origin", b"http://127.0.0.1:8000"))[0] == 200


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        (b"cross-site", b"no-cors", b"script", 403),
        (b"cross-site", b"no-cors", b"image", 403),
        (b"same-site", b"cors", b"empty", 403),
        (b"cross-site", b"navigate", b"iframe", 403),
        (b"cross-site", b"navigate", b"document", 200),
        (b"same-origin", b"cors", b"empty", 200),
        (b"none", b"navigate", b"document", 200),
    ],
)
def test_a_request_that_another_sites_page_makes_is_refused(site: bytes, mode: bytes, dest: bytes, status: int) -> None:
    """Browsers say so themselves; following a link to the page is allowed."""
    sec = [(b"sec-fetch-site", site), (b"sec-fetch-mode", mode), (b"sec-fetch-dest", dest)]
    assert asked(f"/{TOKEN}/", HOST, *sec)[0] == status


@pytest.mark.parametrize(
    "path", ["/", "/live", f"/{TOKEN[:-1]}/", f"/{TOKEN}t/", f"//{TOKEN}/", "/%74/", f"/x/{TOKEN}/"]
)
def test_who_does_not_know_the_token_is_refused(path: str) -> None:
    assert asked(path, HOST)[::2] == (403, [])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_nothing_can_be_changed(method: str) -> None:
    assert asked(f"/{TOKEN}/", HOST, method=method)[::2] == (405, [])


def test_the_address_without_its_slash_is_not_the_page() -> None:
    """Links of the page would lead elsewhere."""
    assert asked(f"/{TOKEN}", HOST)[::2] == (404, [])
