"""What ``finetune doctor`` says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing that was looked at; ``remedy`` is empty where nothing needs doing."""

    level: Level
    topic: str
    text: str
    remedy: str = ""
