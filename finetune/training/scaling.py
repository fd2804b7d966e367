"""The scale of the loss in mixed precision: as large as it can be, so that small gradients are not lost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from finetune.errors import DivergedError

START = 2.0**10
LARGEST = 2.0**24
PATIENCE = 1000  # steps without an overflow until the scale is doubled


@dataclass(frozen=True, slots=True)
class LossScale:
    """``value`` multiplies the loss before float16 gradients are taken (Micikevicius et al. 2018).

    ``good`` counts the steps since it changed, ``overflows`` all steps that were left out. Powers of two change no
    digit.
    """

    value: float = START
    good: int = 0
    overflows: int = 0

    def after(self, *, finite: bool) -> LossScale:
        """Return the scale after a step; raises ``DivergedError`` where none is small enough."""
        if not finite and self.value <= 1.0:
            remedy = "lower optimizer.lr or set runner.amp=off"
            raise DivergedError(f"the gradients are not finite at any scale of the loss; {remedy}")
        if not finite:
            return LossScale(value=self.value / 2.0, overflows=self.overflows + 1)
        if self.good + 1 >= PATIENCE and self.value < LARGEST:
            return replace(self, value=self.value * 2.0, good=0)
        return replace(self, good=self.good + 1)

    def state(self) -> dict[str, float]:
        """Return it for a checkpoint."""
        return asdict(self)
