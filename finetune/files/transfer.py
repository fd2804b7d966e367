"""HTTP downloads with limits on time and size, which resume after a connection was cut.

pooch, which could do most of this, waits forever for a server that sends a byte now and then, restarts after every cut,
accepts any number of bytes, and cannot say what it received instead of the file. So this module uses ``requests``.
"""

from __future__ import annotations

import gzip
import os
import shutil
import threading
import time
import zlib
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from finetune.errors import ResourceError
from finetune.files.atomic import make_temporary_name
from finetune.files.remote_file import AddressFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from requests import Response, Session

    from finetune.files.remote_file import RemoteFile

CHUNK = 1 << 18
DIGITS = 30  # that are parsed of a length; Python refuses numbers with thousands of digits
BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a download: seconds, tries and bytes."""

    connect: float = 10.0
    stall: float = 30.0
    trickle: int = 4096  # bytes that must arrive within ``stall``
    tries: int = 4
    pause: float = 1.0  # before the second try; doubled for each further try
    redirects: int = 5
    size: int = 20 << 30


class _Cut(Exception):
    """This try failed, but the next one may succeed."""


class _Moved(Exception):
    """The server redirects to the address in the message."""


def transfer(remote: RemoteFile, part: Path, limits: Limits, progress: bool) -> None:
    """Download into the empty file ``part``; raises ``DownloadError`` or ``ResourceError``."""
    import requests

    with requests.Session() as session, _show_progress(remote, progress) as bar:
        session.hooks["response"].append(_stop_at_redirect)
        for attempt in range(1, limits.tries + 1):
            try:
                return _try(session, remote, part, limits, bar)
            except _Cut as cut:
                if attempt == limits.tries:
                    reason = f"could not be downloaded in {attempt} tries: {cut}"
                    raise AddressFailed(remote, reason, "check the network and try again") from cut
                time.sleep(limits.pause * 2 ** (attempt - 1))


def _try(session: Session, remote: RemoteFile, part: Path, limits: Limits, bar: Any) -> None:
    """Append the missing bytes to ``part`` and verify the complete file."""
    import requests
    import urllib3

    if not remote.digest:  # without a hash, it is unknown whether two answers belong together
        os.truncate(part, 0)
    start = part.stat().st_size
    try:
        with _request(session, remote, start, limits) as reply:
            _check(reply, remote, part)
            resumes = reply.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            _receive(reply, part, remote, limits, bar, start if resumes else 0)
    except requests.exceptions.SSLError as error:
        raise AddressFailed(remote, "has an invalid TLS certificate", "check the proxy and the clock") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Cut(_explain_error(error, limits)) from error
    if remote.matches(part) or _gunzip(reply, remote, part, limits):
        return
    broken = remote.find_mismatch(part)
    if not start and not _is_framed(reply):  # it may have been cut, which only the hash shows
        raise _Cut(broken.reason)
    os.truncate(part, 0)
    # A file that was joined from two answers may be wrong because it changed between them.
    raise _Cut(broken.reason) if start else broken


def _request(session: Session, remote: RemoteFile, start: int, limits: Limits) -> Response:
    """Request all bytes from ``start`` on, follow redirects, and return the answer.

    ``requests`` itself would read the body of a redirect, however long it is.
    """
    headers = {"User-Agent": "finetune", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    url = remote.url
    for _ in range(limits.redirects + 1):
        ask = partial(session.get, url, headers=headers, stream=True, timeout=(limits.connect, limits.stall))
        try:
            return _wait_for(limits.connect + limits.stall, ask)
        except _Moved as moved:
            try:
                url = urljoin(url, str(moved))
                remote.check_redirect(url)
            except ValueError:
                raise AddressFailed(remote, "redirects to an invalid address", "use another address") from None
    raise AddressFailed(remote, "redirects too often")


def _wait_for(seconds: float, ask: Callable[[], Response]) -> Response:
    """Return an answer whose headers arrive in time; the socket's timeout only limits the time between two bytes."""
    future: Future[Response] = Future()

    def work() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        future.add_done_callback(_close)
        raise _Cut(f"no answer in {seconds:g} s") from None


def _close(late: Future[Response]) -> None:
    if not late.exception():
        late.result().close()


def _stop_at_redirect(reply: Response, **_: object) -> None:
    if reply.is_redirect:
        reply.close()
        raise _Moved(reply.headers["Location"].encode("latin-1", "replace").decode("utf-8", "replace"))


def _check(reply: Response, remote: RemoteFile, part: Path) -> None:
    status = reply.status_code
    phrase = f"{status} {reply.reason or ''}".strip()
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        os.truncate(part, 0)
        raise _Cut("the server does not resume where the connection was cut")
    if status >= 500 or status in BUSY:
        raise _Cut(f"the server answered {phrase}")
    if status != HTTPStatus.OK and not (status == HTTPStatus.PARTIAL_CONTENT and part.stat().st_size):
        raise AddressFailed(remote, f"is not available, the server answered {phrase}", "check the address")
    if not remote.digest and not (_is_framed(reply) and _is_plain(reply)):
        raise AddressFailed(remote, "has no hash, and the server's answer does not show whether it is complete")


def _is_framed(reply: Response) -> bool:
    """Return whether the end of the body can be distinguished from a cut."""
    chunked = "chunked" in reply.headers.get("Transfer-Encoding", "").lower()
    return chunked or reply.headers.get("Content-Length", "").isdecimal()


def _is_plain(reply: Response) -> bool:
    return reply.headers.get("Content-Encoding", "").strip().lower() in ("", "identity")


def _receive(reply: Response, part: Path, remote: RemoteFile, limits: Limits, bar: Any, start: int) -> None:
    """Append the body, without decoding it, to the first ``start`` bytes of ``part``."""
    total = _compute_total(reply, start)
    too_large = AddressFailed(remote, f"exceeds {limits.size:,} bytes")
    if total and total > limits.size:
        raise too_large
    free = shutil.disk_usage(part.parent).free
    if total and total - start > free:
        raise ResourceError(f"'{remote.target}' needs {total:,} bytes, but only {free:,} are free; free some space")
    with part.open("r+b") as file:
        file.truncate(start)
        done = file.seek(start)
        for chunk in _read_chunks(reply, limits):
            if done + len(chunk) > limits.size:
                raise too_large
            done += file.write(chunk)
            bar(done, total)
    if total and done < total:
        raise _Cut("the connection was cut")


def _compute_total(reply: Response, start: int) -> int | None:
    """Return the size of the complete file, None if the answer does not state it."""
    length = reply.headers.get("Content-Length", "")
    if length.isdecimal():
        return start + int(length[:DIGITS])
    size = reply.headers.get("Content-Range", "").rpartition("/")[2]
    return int(size[:DIGITS]) if start and size.isdecimal() else None


def _read_chunks(reply: Response, limits: Limits) -> Iterator[bytes]:
    """Yield the body as it arrives; too few bytes in ``limits.stall`` seconds end the try."""
    since, count = time.monotonic(), 0
    while chunk := reply.raw.read1(CHUNK, decode_content=False):
        yield chunk
        count += len(chunk)
        if time.monotonic() - since > limits.stall:
            if count < limits.trickle:
                raise _Cut(f"only {count} bytes arrived in {limits.stall:g} s")
            since, count = time.monotonic(), 0


def _gunzip(reply: Response, remote: RemoteFile, part: Path, limits: Limits) -> bool:
    """Return whether ``part``, once unpacked, is the expected file; some servers compress although asked not to."""
    if "gzip" not in reply.headers.get("Content-Encoding", ""):
        return False
    plain = make_temporary_name(part)
    try:
        with gzip.open(part) as source, plain.open("wb") as sink:
            while (chunk := source.read(CHUNK)) and sink.tell() <= limits.size:
                sink.write(chunk)
        if remote.matches(plain):
            os.replace(plain, part)
            return True
    except (gzip.BadGzipFile, EOFError, zlib.error):
        pass
    finally:
        plain.unlink(missing_ok=True)
    return False


def _explain_error(error: Exception, limits: Limits) -> str:
    name = type(error).__name__
    if "ConnectTimeout" in name:
        return f"no connection in {limits.connect:g} s"
    if "ReadTimeout" in name:
        return f"no data for {limits.stall:g} s"
    if "Protocol" in name or "Incomplete" in name or "Chunked" in name:
        return "the connection was cut"
    return "the proxy does not answer" if "Proxy" in name else "no connection"


@contextmanager
def _show_progress(remote: RemoteFile, wanted: bool) -> Iterator[Any]:
    """Yield ``f(done, total)``, which updates a progress bar on a terminal and does nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda done, total: None
        return
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(remote.target.name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
