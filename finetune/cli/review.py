"""``review``: a page to decide about the findings of an audit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from finetune.cli import output
from finetune.cli.app import Answer, command
from finetune.errors import UsageError
from finetune.files.atomic import expand_home

Folder = Annotated[Path, typer.Argument(hidden=True)]
Port = Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0 chooses a free one.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


@command("AUDIT", "finetune review runs/audit-001", "finetune review runs/audit-001 --open")
def review(audit: Folder, port: Port = 0, browser: Open = False) -> Answer:
    """Decide about the findings of an audit, on a page.

    AUDIT is the folder of an audit. The page is served on this machine only, at
    a secret address. Keep, relabel or exclude each photo with K, R and X; U takes
    the last decision back. Every decision is stored at once in corrections.csv,
    and the review can be resumed. Ctrl-C ends it.
    """
    from finetune.display.progress import Progress
    from finetune.machine import interrupts
    from finetune.review import server
    from finetune.review.decisions import ACTIONS, Review, lock_review

    server.check_installed()
    folder = expand_home(audit)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name a folder that `finetune audit` wrote")
    say = Progress(report=False).say
    with lock_review(folder):
        found = Review(folder)

        def announce(address: str) -> None:
            say(f"open {address}\nCtrl-C ends the review; every decision is already stored")
            if browser:
                import webbrowser

                webbrowser.open(address)

        with interrupts.watch_signals() as stop, suppress(interrupts.StopRequested):
            server.serve_review(found, port, announce, stop.check)
    actions: list[str] = [each.action for each in found.decided.values()]
    counts = {action: actions.count(action) for action in ACTIONS}
    data: dict[str, Any] = {"findings": len(found.items), "decided": len(actions), **counts}
    data["corrections"] = str(folder / "corrections.csv")
    return Answer(data=data, view=lambda: output.render_pairs((name, str(value)) for name, value in data.items()))
