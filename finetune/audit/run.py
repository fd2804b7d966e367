"""Running an audit: from a plan to a numbered folder with its files."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.audit import maps, page, report
from finetune.audit.audit import audit_prepared
from finetune.files import atomic
from finetune.training import preflight, runfolder
from finetune.training.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan

NAME = "audit"


def audit_plan(
    plan: Plan,
    catalogue: Catalogue,
    *,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Audit the data of a plan, write the files, and return the report.

    ``folder`` is where the folder ``audit-NNN`` is created, by default the folder of the recipe's runs. ``check`` may
    raise to stop.
    """
    created = runfolder.create_folder(folder or plan.recipe.output, NAME)  # now, before anything that takes long
    try:
        return audit_into(created, plan, catalogue, say, check)
    except BaseException:
        with suppress(OSError):
            created.rmdir()  # unless it has files already
        raise


def audit_into(
    created: Path, plan: Plan, catalogue: Catalogue, say: Callable[[str], None], check: Callable[[], None]
) -> dict[str, Any]:
    """Audit the data of a plan, write the files into a folder, and return the report."""
    preflight.check_device(plan)
    prepared = prepare(plan, catalogue, say=partial(say_about_data, say), tried=0)
    found = audit_prepared(prepared, say, check)
    report.write_audit(found, created)
    maps.write_pictures(found, created)
    maps.write_maps(prepared, found, created, check)
    atomic.write_text(created / "audit.html", page.render_audit(found, created))
    proposed = sum(1 for _ in report.propose_corrections(found))
    return {**report.describe_audit(found), "folder": str(created), "proposed": proposed}


def say_about_data(say: Callable[[str], None], message: str) -> None:
    """Print warnings and notes of the preparation, and not what a run would choose."""
    if message.startswith(("warning: ", "note: ")):
        say(message)
