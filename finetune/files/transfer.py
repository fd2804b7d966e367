"""Carry a promised file over HTTP: bounded in time and size, going on where a connection was cut.

pooch, which could do most of this, waits for ever on a server that sends a byte now and then, starts anew after every
cut, takes any number of bytes, and cannot say what came instead of the file; so ``requests`` is driven here directly.
"""

from __future__ import annotations

import gzip
import os
import shutil
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from finetune.errors import DownloadError, ResourceError
from finetune.files.atomic import temporary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from requests import Response, Session

    from finetune.files.promise import Promise

CHUNK = 1 << 18
BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server may ask of a download: seconds, tries and bytes."""

    connect: float = 10.0
    stall: float = 30.0
    trickle: int = 4096  # bytes that must come within ``stall``
    tries: int = 4
    pause: float = 1.0  # before the second try, then twice as long each time
    redirects: int = 5
    size: int = 20 << 30


class _Cut(Exception):
    """This try failed, the next may not."""


def transfer(promise: Promise, part: Path, limits: Limits, progress: bool) -> None:
    """Fill the empty file ``part`` with what was promised; raises ``DownloadError`` or ``ResourceError``."""
    import requests

    with requests.Session() as session, _bar(promise, progress) as bar:
        session.max_redirects = limits.redirects
        session.hooks["response"].append(lambda reply, **_: _check_redirect(reply, promise))
        for attempt in range(1, limits.tries + 1):
            try:
                return _try(session, promise, part, limits, bar)
            except _Cut as cut:
                if attempt == limits.tries:
                    text = f"'{promise.shown}' could not be fetched in {attempt} tries: {cut}"
                    raise DownloadError(f"{text}; check the network and try again, or {promise.by_hand}") from cut
                time.sleep(limits.pause * 2 ** (attempt - 1))


def _try(session: Session, promise: Promise, part: Path, limits: Limits, bar: Any) -> None:
    """Add what is missing to ``part`` and verify the whole."""
    import requests
    import urllib3

    start = part.stat().st_size
    headers = {"User-Agent": "finetune", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with session.get(promise.url, headers=headers, stream=True, timeout=(limits.connect, limits.stall)) as reply:
            _check(reply, promise, part)
            goes_on = reply.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            _receive(reply, part, promise, limits, bar, start if goes_on else 0)
    except requests.exceptions.TooManyRedirects as error:
        raise DownloadError(f"'{promise.shown}' leads from one address to the next; {promise.by_hand}") from error
    except requests.exceptions.SSLError as error:
        text = f"'{promise.shown}' cannot be trusted: its TLS certificate does not check"
        raise DownloadError(f"{text}; mend the proxy or the clock, or {promise.by_hand}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Cut(_reason(error, limits)) from error
    if promise.kept_by(part) or _gunzip(reply, promise, part, limits):
        return
    broken = promise.broken_by(part)
    os.truncate(part, 0)
    # What was put together from two answers may be wrong because the file changed between them.
    raise _Cut(str(broken)) if start else broken


def _check_redirect(reply: Response, promise: Promise) -> None:
    if reply.is_redirect:
        try:
            promise.check_address(urljoin(reply.url, reply.headers["Location"]))
        except DownloadError:
            reply.close()
            raise


def _check(reply: Response, promise: Promise, part: Path) -> None:
    status = reply.status_code
    phrase = f"{status} {reply.reason or ''}".strip()
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        os.truncate(part, 0)
        raise _Cut("the server does not go on where it was cut")
    if status >= 500 or status in BUSY:
        raise _Cut(f"the server answered {phrase}")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise DownloadError(
            f"'{promise.shown}' cannot be had, the server answered {phrase}; check the address, or {promise.by_hand}"
        )


def _receive(reply: Response, part: Path, promise: Promise, limits: Limits, bar: Any, start: int) -> None:
    """Append the body to the first ``start`` bytes of ``part``, as it came over the wire."""
    length = reply.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    free = shutil.disk_usage(part.parent).free
    if total and total - start > free:
        raise ResourceError(f"'{promise.target}' needs {total:,} bytes, {free:,} are free; free some space")
    with part.open("r+b") as file:
        file.truncate(start)
        done = file.seek(start)
        for chunk in _chunks(reply, limits):
            done += file.write(chunk)
            bar(done, total)
            if done > limits.size:
                raise DownloadError(f"'{promise.shown}' exceeds {limits.size:,} bytes; {promise.by_hand}")


def _chunks(reply: Response, limits: Limits) -> Iterator[bytes]:
    """Yield the body as it comes; too little of it in ``limits.stall`` seconds ends the try."""
    since, count = time.monotonic(), 0
    while chunk := reply.raw.read1(CHUNK, decode_content=False):
        yield chunk
        count += len(chunk)
        if time.monotonic() - since > limits.stall:
            if count < limits.trickle:
                raise _Cut(f"only {count} bytes came in {limits.stall:g} s")
            since, count = time.monotonic(), 0


def _gunzip(reply: Response, promise: Promise, part: Path, limits: Limits) -> bool:
    """Whether ``part`` is the promised file once unpacked, from a server that compresses though asked not to."""
    if "gzip" not in reply.headers.get("Content-Encoding", ""):
        return False
    plain = temporary(part)
    try:
        with gzip.open(part) as source, plain.open("wb") as sink:
            while (chunk := source.read(CHUNK)) and sink.tell() <= limits.size:
                sink.write(chunk)
        if promise.kept_by(plain):
            os.replace(plain, part)
            return True
    except (gzip.BadGzipFile, EOFError, zlib.error):
        pass
    finally:
        plain.unlink(missing_ok=True)
    return False


def _reason(error: Exception, limits: Limits) -> str:
    name = type(error).__name__
    if "ConnectTimeout" in name:
        return f"no connection in {limits.connect:g} s"
    if "ReadTimeout" in name:
        return f"nothing came for {limits.stall:g} s"
    if "Protocol" in name or "Incomplete" in name or "Chunked" in name:
        return "the connection was cut"
    return "the proxy does not answer" if "Proxy" in name else "no connection"


@contextmanager
def _bar(promise: Promise, wanted: bool) -> Iterator[Any]:
    """Yield ``f(done, total)`` that draws a progress bar on a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda done, total: None
        return
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(promise.target.name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
