"""The listening socket, and the limits of a visitor's connections: their number, silence and slowness."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["HOST", "MAX_CONNECTIONS", "bound", "protocol"]

HOST = "127.0.0.1"
MAX_CONNECTIONS = 100
"""Maximum number of connections at a time; more are refused with status 503."""

SILENT_SECONDS = 10.0
"""Time after which a connection without a request is closed."""

SLOW_SECONDS = 30.0
"""Time after which a connection is closed whose reader has taken nothing."""


def bound(port: int) -> socket.socket:
    """Listen on the loopback alone."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of one that has just ended
        found.bind((HOST, port))
        found.listen(128)  # at once, so that a browser that is quick waits instead of failing
    except OSError as error:
        found.close()
        hint = "leave --port out for a free one"
        raise ConfigError(f"port {port} cannot be listened on: {error.strerror or error}", hint=hint) from None
    return found


def protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with limits: of connections, of silence, and of slow readers."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _silence: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                transport.write(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                transport.close()
                return
            self._silence = self.loop.call_later(SILENT_SECONDS, self._end_if_silent)

        def _end_if_silent(self) -> None:
            cycle: object = self.cycle
            if cycle is None:  # no request has come yet
                self.transport.abort()

        def shutdown(self) -> None:
            super().shutdown()
            self.transport.close()  # a stream of events has no end of its own

        def pause_writing(self) -> None:
            super().pause_writing()
            self._arm()

        def _arm(self) -> None:
            self._timer = self.loop.call_later(SLOW_SECONDS, self._end_if_stuck, self.transport.get_write_buffer_size())

        def _end_if_stuck(self, before: int) -> None:
            if self.transport.get_write_buffer_size() < before:  # it is slow, but it reads
                self._arm()
            else:
                self.transport.abort()

        def resume_writing(self) -> None:
            self._cancel()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            if self._silence is not None:
                self._silence.cancel()
            super().connection_lost(exc)

        def _cancel(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Bounded
