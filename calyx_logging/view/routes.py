"""The server's routes: the page, its data, and the stream of news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from calyx_logging.core import json_bytes
from calyx_logging.errors import CalyxError, ConfigError
from calyx_logging.report.served import SERVED_POLICY, served_files
from calyx_logging.view.access import App, Receive, Scope, Send
from calyx_logging.view.board import Board
from calyx_logging.view.content import Content
from calyx_logging.view.stream import Stream

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["routes"]

_MAX_WAITING = 30
"""Maximum number of questions that wait for the database."""

_PING_SECONDS = 15.0


def routes(content: Content, stream: Stream | None, board: Board) -> App:
    """Return the application that answers at `/` and below it.

    `/` is the page; `/live` its stream, `/recent` the events with which a page begins; `/cases`, `/runs`, `/run`,
    `/events` and `/others` are what `Content` answers.

    Args:
        content: answers.
        stream: of events; None where nothing is written.
        board: what is told beside them.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    answer = _Answers()

    async def page(request: Request) -> Response:
        board.asked()
        return _response(content.page, "text/html")

    async def file(request: Request) -> Response:
        found = served_files().get(request.path_params["name"])
        return _refused("there is no such page", 404) if found is None else _response(found[1], found[0])

    async def run(request: Request) -> Response:
        return await answer(partial(content.run, _key(request), _number(request, "first") or 0))

    async def events(request: Request) -> Response:
        case_id, event_id = (request.query_params.get(name) for name in ("case", "id"))
        return await answer(partial(content.events, _key(request), case_id, _number(request, "first"), event_id))

    async def recent(request: Request) -> Response:
        about = {"session": board.session, "page": board.page}
        found = {"first": 1, "lines": []} if stream is None else stream.recent(board.session)
        return _response(json_bytes.dumps({**about, **found}), "application/json")

    async def others(request: Request) -> Response:
        return await answer(partial(content.others, _key(request), request.query_params.get("case", "")))

    async def runs(request: Request) -> Response:
        return await answer(partial(content.older_runs, _number(request, "first") or 0))

    async def cases(request: Request) -> Response:
        return await answer(content.first_cases)

    found = [
        *(Route("/", page), Route("/live", _Live(stream, board)), Route("/cases", cases), Route("/runs", runs)),
        *(Route("/run", run), Route("/events", events), Route("/others", others), Route("/recent", recent)),
        Route("/{name}", file),
    ]
    return Starlette(routes=found, exception_handlers={_BadRequest: _on_bad_request, 404: _on_not_found})


class _Answers:
    """Has questions answered by the database, in threads, and not too many at a time."""

    def __init__(self) -> None:
        self._waiting = 0

    async def __call__(self, question: Callable[[], Any]) -> Response:
        if self._waiting >= _MAX_WAITING:
            return _refused("too many questions at a time", 503)
        self._waiting += 1
        try:
            document = await asyncio.to_thread(lambda: json_bytes.dumps(question()))
        except ConfigError as error:
            return _refused(str(error), 404)
        except (CalyxError, OSError) as error:
            return _refused(str(error), 500)
        finally:
            self._waiting -= 1
        return _response(document, "application/json")


class _Live:
    """Server-sent events: `hello`, `lines` of the outbox, `skipped`, `changed` (the page), `step` and `trouble`.

    The id of `lines` is the server's session and the number of the last of them; who comes back with it goes on there.
    """

    def __init__(self, stream: Stream | None, board: Board) -> None:
        self._stream, self._board = stream, board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.ensure_future(_is_gone(receive))
        try:
            with self._board.watching() as wake:
                gone.add_done_callback(lambda _: wake.set())
                await self._send_all(send, wake, gone, self._place(scope))
        finally:
            gone.cancel()

    def _place(self, scope: Scope) -> int:
        """Return the number of the first event that is wanted."""
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        asked = dict(scope["headers"]).get(b"last-event-id", b"").decode("ascii", "replace")
        session, _, number = (asked or query.get("after", [""])[0]).partition("-")
        is_ours = session == self._board.session and number.isascii() and number.isdecimal() and len(number) < 16
        return int(number) + 1 if is_ours else 1

    async def _send_all(self, send: Send, wake: asyncio.Event, gone: asyncio.Future[None], place: int) -> None:
        board, stream, page, step, trouble = self._board, self._stream, 0, "", ""
        await _say(send, "hello", {"session": board.session, "next": 1 if stream is None else stream.next})
        while not gone.done() and not board.ending.is_set():
            wake.clear()
            if board.trouble != trouble:
                trouble = board.trouble
                await _say(send, "trouble", trouble)
            if board.page != page:
                page = board.page
                await _say(send, "changed", page)
            if not page and board.step != step:
                step = board.step
                await _say(send, "step", step)
            batch = None if stream is None else stream.after(place)
            if batch is not None and batch.lines:
                if batch.missed and place > 1:
                    await _say(send, "skipped", batch.missed)
                place = batch.after
                last = f"{board.session}-{place - 1}"
                await _say(send, "lines", {"first": batch.first, "lines": batch.lines}, last)
                continue
            try:
                await asyncio.wait_for(wake.wait(), _PING_SECONDS)
            except TimeoutError:
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _say(send: Send, name: str, data: object, last: str | None = None) -> None:
    number = b"" if last is None else b"id: " + last.encode() + b"\n"
    body = b"event: " + name.encode() + b"\n" + number + b"data: " + json_bytes.dumps(data) + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _is_gone(receive: Receive) -> None:
    with suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass


class _BadRequest(Exception):
    """A question that is not understood."""


def _key(request: Request) -> str:
    key = request.query_params.get("run", "")
    if key in ("errors", "outside") or (len(key) == 16 and key.isalnum()):
        return key
    raise _BadRequest("run= is no key of a run")


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise _BadRequest(f"{name}= is no number")
    return int(text)


async def _on_bad_request(request: Request, error: Exception) -> Response:
    return _refused(str(error), 400)


async def _on_not_found(request: Request, error: Exception) -> Response:
    return _refused("there is no such page", 404)


def _refused(text: str, status: int) -> Response:
    return _response(json_bytes.dumps({"error": text}), "application/json", status)


def _response(data: bytes, media_type: str, status: int = 200) -> Response:
    from starlette.responses import Response

    full = f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
    return Response(data, status, {"content-security-policy": SERVED_POLICY}, full)
