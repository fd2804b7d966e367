"""A server on this machine that behaves well, badly, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, urlsplit

from finetune.files.transfer import Limits
from tests.clocks import LONGEST

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 2000
SHA256 = "sha256:" + hashlib.sha256(DATA).hexdigest()
QUICK = Limits(connect=LONGEST, stall=LONGEST, trickle=100, tries=3, pause=0.01)
HASTY = Limits(connect=LONGEST, stall=0.3, trickle=100, tries=3, pause=0.01)  # for a server that does not answer
LOGIN = b"<!DOCTYPE html><html><head><title>Log in\n to WiFi</title></head></html>"


class Server(BaseHTTPRequestHandler):
    """Answers ``/name``, and all that is below it, with the method ``name``."""

    calls: ClassVar[list[str]]
    release: ClassVar[threading.Event]
    sent: ClassVar[int]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        name, self.query = parts.path.strip("/").partition("/")[0], dict(parse_qsl(parts.query))
        self.calls.append(f"{name} {self.headers.get('Range', '')}".strip())
        self.close_connection = True
        getattr(self, name)()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def good(self) -> None:
        self.answer(200, DATA)

    def endless(self) -> None:
        self.answer(200, DATA, length=-1)

    def missing(self) -> None:
        self.answer(404, b"<html>not here</html>")

    def forbidden(self) -> None:
        self.answer(403)

    def down(self) -> None:
        self.answer(503)

    def down_once(self) -> None:
        self.answer(500) if len(self.calls) == 1 else self.good()

    def busy_once(self) -> None:
        self.answer(503) if len(self.calls) == 1 else self.good()

    def cut_always(self) -> None:
        self.answer(200, DATA[:1000], length=len(DATA))

    def cut_once(self) -> None:
        """Cut the first answer; go on where it was cut."""
        wanted = self.headers.get("Range")
        if not wanted:
            return self.answer(200, DATA[:100_000], length=len(DATA))
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        return self.answer(206, DATA[start:], Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")

    def cut_at(self) -> None:
        """Cut every answer after so many bytes; say how long the file is, and go on in the middle, if asked to."""
        count, wanted = int(self.query["count"]), self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and "goes_on" in self.query else 0
        headers = {"Content_Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
        length = len(DATA) - start if "length" in self.query else -1
        last = len(self.calls) > 1 and "goes_on" not in self.query
        body = DATA if last else DATA[start : start + count]
        self.answer(206 if start else 200, body, length=length, **headers)

    def cut_once_then_whole(self) -> None:
        self.answer(200, b"x" * 9, length=len(DATA)) if len(self.calls) == 1 else self.good()

    def cut_once_then_changed(self) -> None:
        """Cut the first answer, after which the file is another one."""
        if len(self.calls) == 1:
            self.answer(200, b"x" * 9, length=len(DATA))
        elif self.headers.get("Range"):
            self.answer(206, DATA[9:], Content_Range=f"bytes 9-{len(DATA) - 1}/{len(DATA)}")
        else:
            self.good()

    def cut_then_unsatisfiable(self) -> None:
        if len(self.calls) == 1:
            self.answer(200, DATA[:9], length=len(DATA))
        elif self.headers.get("Range"):
            self.answer(416)
        else:
            self.good()

    def too_long(self) -> None:
        self.answer(200, DATA, length=len(DATA) + 1000)

    def too_short(self) -> None:
        self.answer(200, DATA, length=len(DATA) - 1000)

    def no_number(self) -> None:
        """Say of the length what is none, and send the file all the same."""
        self.answer(200, DATA, length=-1, Content_Length="many")

    def thousands_of_digits(self) -> None:
        self.answer(200, DATA, length=-1, Content_Length="9" * 5000)

    def unasked_part(self) -> None:
        self.answer(206, DATA[1000:], Content_Range=f"bytes 1000-{len(DATA) - 1}/{len(DATA)}")

    def cut_in_chunks(self) -> None:
        self.answer(200, b"3e8\r\n" + DATA[:1000] + b"\r\n3e8\r\nhalf", length=-1, Transfer_Encoding="chunked")

    def stall(self) -> None:
        self.answer(200, DATA[:1000], length=len(DATA))
        self.release.wait(LONGEST)

    def drip(self) -> None:
        self.answer(200, b"", length=len(DATA))
        while not self.release.wait(0.05):
            self.wfile.write(b"x")

    def drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        with suppress(OSError):
            while not self.release.wait(0.05):
                self.wfile.write(b"x")

    def silent(self) -> None:
        self.release.wait(LONGEST)

    def wrong(self) -> None:
        self.answer(200, DATA[:-1] + b"!")

    def login(self) -> None:
        self.answer(200, LOGIN, Content_Type="text/html")

    def pointer(self) -> None:
        self.answer(200, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")

    def empty(self) -> None:
        self.answer(200)

    def zipped(self) -> None:
        self.answer(200, gzip.compress(DATA), Content_Encoding="gzip")

    def zipped_badly(self) -> None:
        self.answer(200, gzip.compress(DATA)[:-20], Content_Encoding="gzip")

    def mislabelled(self) -> None:
        """Say of a file as it is that it was compressed on the way."""
        self.answer(200, DATA, Content_Encoding="x-gzip")

    def moved(self) -> None:
        self.answer(302, Location="/good")

    def loop(self) -> None:
        self.answer(302, Location="/loop")

    def portal(self) -> None:
        self.answer(302, Location="http://portal.invalid/login")

    def portal_ftp(self) -> None:
        self.answer(302, Location="ftp://portal.invalid/login")

    def portal_file(self) -> None:
        self.answer(302, Location="file:///etc/passwd")

    def nowhere(self) -> None:
        self.answer(302, Location="http://[")

    def moved_endlessly(self) -> None:
        """Redirect with a body that does not end."""
        self.answer(302, length=-1, Location="/good")
        with suppress(OSError):
            while not self.release.wait(0.001):
                self.wfile.write(b"x" * 100_000)

    def more_than_said(self) -> None:
        """Go on after the end of the file."""
        self.answer(200, DATA, length=-1)
        with suppress(OSError):
            while not self.release.wait(0.001):
                self.wfile.write(b"x" * 100_000)

    def huge(self) -> None:
        self.answer(200, b"x", length=10**18)

    def slow(self) -> None:
        time.sleep(0.3)
        self.good()

    def paced(self) -> None:
        """Send the file in half a second."""
        type(self).sent = 0
        self.answer(200, b"", length=len(DATA))
        with suppress(OSError):
            for start in range(0, len(DATA), 10_000):
                self.wfile.write(DATA[start : start + 10_000])
                type(self).sent = start + 10_000
                self.release.wait(0.01)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Yield the address of a server in a thread of this process."""
    Server.calls, Server.sent = [], 0
    Server.release = threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    http.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{http.server_port}"
    finally:
        Server.release.set()
        http.shutdown()
        thread.join()
        http.server_close()


def files(folder: Path) -> list[str]:
    """Return the names in a folder, temporary files among them, but not the lock of a download that failed."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
