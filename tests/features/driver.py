"""A run in a process of its own, which may be killed or held while it writes features.

python -m tests.features.driver RECIPE.json [--kill-at N] [--hold FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

from finetune.features import store
from tests.clocks import wait_for
from tests.features import tiny


def main() -> None:
    """Run a recipe with shards of one chunk, and write what came of it as the last line of standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kill-at", type=int, default=0, help="in the middle of which shard to die")
    parser.add_argument("--hold", type=Path, help="what to wait for in the middle of the second shard")
    asked = parser.parse_args()
    store.SHARD_BYTES = 1
    seal, written = store.Table.seal, []

    def sealed(*arguments: Any) -> bytes:
        written.append(1)  # nothing is read from an empty cache, so that only shards that are written get here
        if len(written) == asked.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(written) == 2 and asked.hold:
            print("holding", flush=True)
            wait_for(asked.hold.exists)
        return seal(*arguments)

    store.Table.seal = sealed  # type: ignore[assignment]
    made = tiny.run(json.loads(asked.recipe.read_text(encoding="utf-8")))
    print(json.dumps({"weights": made.weights, "features": made.features, "said": made.said}))


if __name__ == "__main__":
    main()
