"""Hooks of mkdocs: turns links to the source tree into text, and warns about pages that load anything external."""

from __future__ import annotations

import logging
import re
from functools import partial
from html.parser import HTMLParser
from typing import Any

LOG = logging.getLogger("mkdocs.hooks.site")  # `mkdocs build --strict` counts its warnings
CODE = re.compile(r"(^```.*?^```$)", re.S | re.M)
LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)#\s]+)\)")
LOADING = {"audio", "embed", "iframe", "img", "link", "object", "script", "source", "video"}
NAMING = {"canonical", "next", "prev"}  # these links name a page and load nothing


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Return a page in which files outside of ``docs/`` are named, not linked: the site has no source tree."""
    depth = page.file.src_uri.count("/") if page else 0
    parts = CODE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(partial(name_path, depth), part) for part in parts)


def name_path(depth: int, link: re.Match[str]) -> str:
    """Return a link's text with the path it leads to; a link of a page ``depth`` folders down may stay in ``docs/``."""
    text, up, path = link.groups()
    if up.count("../") <= depth:
        return link[0]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


class Loads(HTMLParser):
    """Collects the addresses outside of the site that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the external addresses of one tag."""
        values = dict(attrs)
        if tag not in LOADING or values.get("rel") in NAMING:
            return
        places = (values.get(name) or "" for name in ("src", "href", "data", "srcset", "poster"))
        self.found += [place for place in places if re.match(r"(\w+:)?//", place)]


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn about each external address that a page loads."""
    loads = Loads()
    loads.feed(output)
    for place in loads.found:
        LOG.warning("%s loads %s; the site must work without a network", page.file.src_path, place)
    return output
