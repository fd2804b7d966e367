"""Watch a run in Python: print a line for each epoch, and stop once the accuracy is high enough.

    python examples/own_callback.py photos/

The folder contains one folder of photos for each class. Any object with ``@hookimpl`` methods can watch a run;
docs/plugins.md lists the events. To use a callback in recipes, put it into a package with the hook
``finetune_callbacks``.
"""

import sys

from finetune import Finetuner, Run, hookimpl


class Lines:
    """Prints the loss and the accuracy of each epoch, and stops the run at a given accuracy."""

    def __init__(self, enough: float) -> None:
        self.enough = enough

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        """Print a line for the epoch; stop the run if it is good enough."""
        accuracy = metrics["val_accuracy"]
        print(f"epoch {epoch} of {run.recipe.train.epochs}: loss {metrics['train_loss']:.3f}, accuracy {accuracy:.1%}")
        if accuracy >= self.enough:
            run.stop(f"{accuracy:.1%} is enough")

    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        """Print the run folder, however the run ended."""
        print(f"everything is in {run.folder}")


ft = Finetuner(
    "resnext_nano",
    weights="none",
    freeze="none",
    image={"size": 64, "resize": 72},
    plugins=[Lines(enough=0.99)],
    progress=False,
)
ft.fit(sys.argv[1], epochs=3)
