"""A server of the page in a process of its own, as a user starts it, and ways to ask it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

WAIT = 60.0


class Served:
    """A server that runs.

    Attributes:
        url: of the page.
        port: that it listens on.
        path: of the page, with the token.
    """

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any]) -> None:
        self.process = process
        self.url: str = told["url"]
        self.port: int = told["port"]
        self.path = urlsplit(self.url).path

    def get(self, name: str = "", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask below the page: status, headers in lower case, body."""
        return self.ask(self.path + name, method, **headers)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask for any path; `Sec_Fetch_Site` in `headers` is sent as `Sec-Fetch-Site`."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, name: str) -> Any:
        """Return the document of an answer."""
        status, _, body = self.get(name)
        assert status == 200, body
        return json.loads(body)

    def facts(self) -> Any:
        """Return the facts of the page, when there is one."""
        return json.loads(self.page().split('id="facts">')[1].split("</script>")[0])

    def page(self) -> str:
        """Return the page, when it has been made."""
        return until(lambda: text if 'id="facts"' in (text := self.get()[2].decode()) else None)

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """End it as a user does: exit code, and what it said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=WAIT)
        return self.process.returncode, said

    def events(self, after: str = "") -> Stream:
        """Open its stream of events."""
        return Stream(self, after)


class Stream:
    """A reader of server-sent events, as a browser's."""

    def __init__(self, served: Served, after: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", served.port), timeout=WAIT)
        query = f"?after={after}" if after else ""
        head = f"GET {served.path}live{query} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n"
        self._socket.sendall(head.encode())
        self._file = self._socket.makefile("rb")
        assert b"200" in self._file.readline()
        while self._file.readline().strip():
            pass
        self.last = after

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        name, data = "", ""
        deadline = time.monotonic() + 2 * WAIT
        for line in self._lines():
            assert time.monotonic() < deadline, "nothing more comes"  # but signs of life
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                self.last = value
            elif field == "data":
                data = value
            elif not line and name:
                yield name, json.loads(data)
                name = ""

    def _lines(self) -> Iterator[str]:
        """Undo the chunks of the transfer."""
        rest = b""
        while size := int(self._file.readline().strip() or b"0", 16):
            rest += self._file.read(size)
            self._file.readline()
            *whole, rest = rest.split(b"\n")
            yield from (line.decode() for line in whole)

    def messages(self, count: int) -> list[str]:
        """Return the messages of this many events, as they come."""
        found: list[str] = []
        for name, data in self:
            if name == "lines":
                found += [json.loads(line)["message"] for line in data["lines"]]
            if len(found) >= count:
                return found
        raise AssertionError(f"it ended after {len(found)} events")

    def close(self) -> None:
        """Go away."""
        self._file.close()
        self._socket.close()


def until(found: Any, seconds: float = WAIT) -> Any:
    """Return the result of a function as soon as there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError("it does not come")


@contextmanager
def served(*args: str | Path, cwd: Path | None = None, **environment: str) -> Iterator[Served]:
    """Serve until the block ends."""
    command = [sys.executable, "-m", "calyx_logging.scripts", "view", "--json", *map(str, args)]
    surroundings = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen(
        command, cwd=cwd, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate(timeout=WAIT)[1]
            text += line
        yield Served(process, json.loads(text))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT)
