"""A check of something broken, and the rules it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune.testing import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable


def broken(check: Callable[..., None], *arguments: Any, **more: Any) -> tuple[tuple[str, str], ...]:
    """Return the rules that a check finds broken, each with its text."""
    with pytest.raises(ContractError) as caught:
        check(*arguments, **more)
    return caught.value.broken
