"""Weights and layouts that a backbone offers: wrong ones, with what ``check_backbone`` says of them, and sound ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from finetune import Layout, Weights


def record(**more: Any) -> Weights:
    """Return the record of weights without a hash, in the layout ``mine``."""
    return Weights(**{"url": "https://example.org/w.safetensors", "sha256": "", "layout": "mine"} | more)


def names(text: str) -> Path:
    """Return a file of class names."""
    path = Path(tempfile.mkdtemp()) / "names.txt"
    path.write_text(text)
    return path


NAMED = "https://example.org/net-0a1b2c3d-910v2.ckpt"
# What a record says, the rule that it breaks, and what is said of it.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    (
        {"sha256": "abc"},
        "records",
        "weights 'v1': sha256 is 'abc'; write 64 lower-case hex digits, at least the first 8",
    ),
    ({"sha256": "A" * 64}, "records", "write 64 lower-case hex digits"),
    ({"sha256": "0" * 65}, "records", "write 64 lower-case hex digits"),
    ({"sha256": "g" * 64}, "records", "write 64 lower-case hex digits"),
    (
        {"url": NAMED, "sha256": "f" * 64},
        "records",
        "sha256 starts with ffffffff, but the file's name has 0a1b2c3d; cor",
    ),
    ({"url": "http://example.org/w"}, "records", "url is 'http://example.org/w', which is neither https nor file; use"),
    ({"url": "https:///w"}, "records", "which is neither https nor file"),
    ({"url": "file:///gone/w.ckpt"}, "records", "which does not exist; add the file to the package, or correct"),
    ({"mean": (123.7, 116.3, 103.5)}, "records", "wrong mean: [123.7, 116.3, 103.5] is in 0..255, not in 0..1; div"),
    ({"std": (58.4, 57.1, 57.4)}, "records", "wrong std: [58.4, 57.1, 57.4] is in 0..255, not in 0..1; divide by 255"),
    ({"std": (0.2, 0.0, 0.2)}, "records", "wrong std: a standard deviation must be more than 0, got [0.2, 0.0, 0.2]"),
    ({"mean": (0.5,)}, "records", "wrong mean: expected three numbers, got 1; give one for each of red, green"),
    ({"size": 8}, "records", "size is 8 and resize 256; use 16 to 4096 pixels"),
    ({"size": 300}, "records", "size is 300 and resize 256; use 16 to 4096 pixels, and a resize that is not smaller"),
    ({"size": "224"}, "records", "size is '224' and resize 256; use 16 to 4096 pixels"),
    ({"accuracy": 78.6}, "records", "accuracy is 78.6; write top-1 accuracy as a number in 0..1"),
    ({"labels": Path("/gone.txt")}, "labels", "'/gone.txt' cannot be read"),
    ({"labels": names("a\nb\n"), "classes": 3}, "labels", "has 2 class names for 3 logits; write one name per line"),
    ({"labels": names("a\n\nb\n"), "classes": 3}, "labels", "has 3 class names (1 of them empty) for 3 logits"),
]
WRONG_LAYOUTS = [
    (Layout(name="mine", rules=((r"(a", "b"),)), "layout 'mine': '(a' is not a regular expression ("),
    (Layout(name="mine", rules=(), ignore=("*",)), "layout 'mine': '*' is not a regular expression ("),
    (
        Layout(name="mine", rules=(), transpose=((r".*", (0, 0)),)),
        "layout 'mine': transpose has axes (0, 0) for '.*'; write each axis once, such as (3, 2, 0, 1)",
    ),
]
SOUND: list[dict[str, Any]] = [
    {"sha256": "0123abcd"},
    {"url": NAMED, "sha256": "0a1b2c3d"},
    {"url": NAMED, "sha256": "0a1b2c3d" + "0" * 56},
    {"url": "https://example.org/net_20210429.ckpt", "sha256": "f" * 64},
    {"url": Path(__file__).as_uri(), "sha256": "f" * 64, "mean": (0.0,) * 3, "std": (1.0,) * 3},
    {"labels": names("crane\nrose\ncrane\n"), "classes": 3},
]
