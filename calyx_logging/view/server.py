"""Put the page on this machine's loopback, and keep it as new as its cost allows."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from calyx_logging.errors import CalyxError, ConfigError
from calyx_logging.query.duckdb_views import check_memory
from calyx_logging.query.executors import Engine, Here
from calyx_logging.query.locations import chunks_at
from calyx_logging.report.report import MEMORY
from calyx_logging.report.source import Source
from calyx_logging.view.access import Guard
from calyx_logging.view.board import Board
from calyx_logging.view.connections import HOST, bound, protocol
from calyx_logging.view.content import Content
from calyx_logging.view.routes import routes
from calyx_logging.view.stream import Stream

__all__ = ["Server"]

_TICK_SECONDS = 0.5
_REST = 5
"""Rest after making a page, as a multiple of the time that it took."""

_LEAST_SECONDS = 2.0
_LAST_SECONDS = 5.0
"""Time to wait at the end for a page that is being made."""

_QUIET_SECONDS = 1.0
"""Time without a new event after which missing events are looked for, too."""


class Server:
    """Serves the page until it is told to stop.

    Args:
        source: the place.
        engine: reads chunks; None for this process.
        memory: that a database takes at most; there may be two for a moment.
        port: to listen on; 0 for a free one.
        token: in the address; a new one by default.
        warn: is told what cannot be read.

    Attributes:
        port: that is listened on.
        url: the address, with the token.

    Raises:
        ConfigError: an extra is not installed, there is no such place, it is no amount of memory, or the port is in
            use.
    """

    def __init__(
        self,
        source: Source,
        engine: Engine | None = None,
        *,
        memory: str = MEMORY,
        port: int = 0,
        token: str | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        _check_installed()
        check_memory(memory)
        self._warn = warn or (lambda text: None)
        self._board = Board()
        self._content = Content(source, engine or Here(), memory=memory, tell=self._tell)
        self._stream = None
        if source.place == "outbox":
            self._stream = Stream(chunks_at(source.place, source.root), self._board.wake, self._warn)
        self._socket = bound(port)
        self.port: int = self._socket.getsockname()[1]
        token = token or secrets.token_urlsafe(24)
        self.url = f"http://{HOST}:{self.port}/{token}/"
        self._app = Guard(routes(self._content, self._stream, self._board), token, self.port, self._warn)
        self._server: Any = None
        self._refresher = threading.Thread(target=self._keep_fresh, name="calyx-logging-page", daemon=True)

    def run(self) -> None:
        """Serve until Ctrl-C, or until the terminal has gone."""
        if threading.current_thread() is threading.main_thread():
            _heed_signals(self.stop)
        import uvicorn

        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            http=protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=16_384,
        )
        # it would report every odd connection; the guard reports failed answers
        theirs = logging.getLogger("uvicorn")
        theirs.handlers, theirs.propagate = [logging.NullHandler()], False
        self._server = uvicorn.Server(config)
        self._server.should_exit = self._board.ending.is_set()
        if self._stream is not None:
            self._stream.start()
        self._refresher.start()
        try:
            with suppress(KeyboardInterrupt):
                self._server.run(sockets=[self._socket])
        finally:
            self._board.ending.set()
            if self._stream is not None:
                self._stream.close()
            self._socket.close()
            self._content.interrupt()
            self._refresher.join(_LAST_SECONDS)

    @property
    def is_busy(self) -> bool:
        """Whether a thread still reads, after `run` has returned."""
        return self._refresher.is_alive()

    def stop(self) -> None:
        """End, from any thread."""
        self._board.ending.set()
        self._board.wake()
        if self._server is not None:
            self._server.should_exit = True

    # -------------------------------------------------------------- the page, made in a thread

    def _keep_fresh(self) -> None:
        last, cost = 0.0, 0.0
        while not self._board.ending.is_set():
            now = time.monotonic()
            is_due = not last or now - last >= max(_LEAST_SECONDS, _REST * cost)
            is_first = not self._board.page
            if is_due and (is_first or (self._board.is_watched and self._content.has_changed())):
                self._refresh(look=is_first or self._is_quiet(now))
                last = time.monotonic()
                cost = last - now
            self._board.ending.wait(_TICK_SECONDS)
        self._content.close()

    def _is_quiet(self, now: float) -> bool:
        return self._stream is not None and 0 < self._stream.changed_at < now - _QUIET_SECONDS

    def _refresh(self, *, look: bool) -> None:
        trouble = ""
        try:
            self._content.refresh(self._show, look=look)
        except (Exception, KeyboardInterrupt) as error:  # whatever it was, the next page may succeed
            if self._board.ending.is_set():
                return  # it was interrupted
            trouble = str(error) if isinstance(error, (CalyxError, OSError)) else f"{type(error).__name__}: {error}"
        if trouble != self._board.trouble:
            if trouble:
                self._warn(trouble)
            self._board.trouble = trouble
            self._board.wake()

    def _show(self, number: int) -> None:
        self._board.page = number
        self._board.wake()

    def _tell(self, step: str) -> None:
        if self._board.ending.is_set():
            raise ConfigError("the server ends")
        self._board.step = step
        if not self._board.page:
            self._board.wake()


def _heed_signals(stop: Callable[[], None]) -> None:
    """Have signals stop the server, instead of raising KeyboardInterrupt, which an import or a callback may swallow."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as with nohup
            signal.signal(number, lambda *_: stop())


def _check_installed() -> None:
    try:
        import jinja2  # noqa: F401  # whether it is there
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        hint = 'pip install "calyx-logging[view]"'
        raise ConfigError(f"view needs {error.name}, which is not installed", hint=hint) from None
