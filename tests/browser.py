"""A browser for tests of pages: Debian's chromium, without a window."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@dataclass
class Seen:
    """What a page wrote to its console, and which hosts it asked."""

    messages: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@contextmanager
def open_page(*, width: int = 1100, height: int = 900, dark: bool = False) -> Iterator[tuple[Page, Seen]]:
    """Yield an empty page and what will be seen of it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    seen = Seen()
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        scheme = "dark" if dark else "light"
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("console", lambda message: seen.messages.append(message.text))
        page.on("pageerror", lambda error: seen.messages.append(str(error)))
        page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname or request.url[:5]))
        try:
            yield page, seen
        finally:
            browser.close()


def is_too_wide(page: Page) -> bool:
    """Return whether a page has to be scrolled sideways."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return wide
