"""Where else a file may be: mirrors that ``FINETUNE_MIRROR`` names, laid out as ``wget -x`` does it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from finetune.errors import DownloadError
from finetune.files.home import offline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from finetune.files.promise import Failed, Promise

VARIABLE = "FINETUNE_MIRROR"


def addresses(promise: Promise) -> list[Promise]:
    """Return the promise at each address that may be asked, in order: mirrors, then its own; offline only files."""
    found = [*_mirrored(promise), promise]
    return [each for each in found if not offline() or urlsplit(each.url).scheme == "file"]


class Nowhere(DownloadError):
    """No address had the promised file; ``reason`` is the sentence without what can be done."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}; {remedy}")


def nowhere(promise: Promise, failures: Sequence[Failed]) -> DownloadError:
    """Return the error that says what each of the addresses answered, one a line."""
    said = "".join(f"\n  '{failed.promise.shown}' {failed.reason}" for failed in failures)
    if offline() and urlsplit(promise.url).scheme != "file":
        lacking = f", and no mirror has it:{said}" if said else ""
        damaged = f"; '{promise.target}' is there but damaged" if promise.target.is_file() else ""
        text = f"'{promise.shown}' is needed, but FINETUNE_OFFLINE is set{damaged}{lacking}"
        return Nowhere(text, f"unset it, or {promise.by_hand}")
    if len(failures) == 1:
        return failures[0]
    text = f"'{promise.shown}' cannot be had from {len(failures)} addresses:{said}"
    return Nowhere(text, f"check {VARIABLE} and the network, or {promise.by_hand}")


def _mirrored(promise: Promise) -> Iterator[Promise]:
    """Yield the promise at ``BASE/HOST/PATH`` for each base; what is secret in its own address stays out."""
    own = urlsplit(promise.url)
    path = f"{own.netloc.rpartition('@')[2].lower()}{own.path}"
    if own.scheme == "file" or {".", ".."} & {*unquote(path).split("/")}:
        return
    for word in os.environ.get(VARIABLE, "").split():
        try:
            base = urlsplit(word)
            url = base._replace(path=f"{base.path.rstrip('/')}/{path}", fragment="").geturl()
            mirrored = replace(promise, url=url)
            mirrored.check()
        except (DownloadError, ValueError):
            shown = word.partition("?")[0].rpartition("@")[2]
            raise DownloadError(
                f"'{shown}' in {VARIABLE} is no mirror; write https://HOST/PATH or file:///PATH"
            ) from None
        yield mirrored
