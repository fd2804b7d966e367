"""Recipes that cannot be run, and changes on the command line that cannot be carried out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.faults.case import Case, case

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Make

FOLDER = "dataset: {use: folder, root: photos}\n"


def text(content: str | bytes, *more: str) -> Make:
    """Return what writes exactly this recipe."""

    def make(folder: Path) -> list[str]:
        (folder / "r.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["check", "r.yaml", *more]

    return make


def above(lines: str) -> Make:
    """Return what writes a recipe with these lines above a dataset."""
    return text(f"{lines}\n{FOLDER}")


def change(*overrides: str) -> Make:
    """Return what changes a recipe that is right."""
    return text(f"callbacks: [{{use: tensorboard}}, {{use: checkpoint, keep: 2}}]\nseed: 42\n{FOLDER}", *overrides)


def loop(folder: Path) -> list[str]:
    """Make a recipe that is a link to itself."""
    (folder / "r.yaml").symlink_to("r.yaml")
    return ["check", "r.yaml"]


def pipe(folder: Path) -> list[str]:
    """Make a recipe that is a pipe nobody writes to."""
    os.mkfifo(folder / "r.yaml")
    return ["check", "r.yaml"]


def neighbour(folder: Path) -> list[str]:
    """Ask for a recipe that has another ending."""
    (folder / "flowers.yaml").write_text(FOLDER)
    return ["check", "flowers.yml"]


def unfinished(folder: Path) -> list[str]:
    """Go on with a run of which nothing but a folder was made."""
    (folder / "runs" / "r-001").mkdir(parents=True)
    return ["run", "--resume", "runs/r-001"]


def line(*words: str) -> Make:
    """Return what runs a command line where there is nothing."""
    return lambda folder: words


NINES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

CASES: list[Case] = [
    case("Y1", "unknown key", above("trian: {epochs: 3}"), 2, "r.yaml:1:1: trian: unknown key 'trian'", "did you mean"),
    case("Y1", "key of another section", above("train: {lr: 1}"), 2, "unknown key 'lr'", "did you mean 'optimizer.lr'"),
    case("Y1", "unknown component", above("backbone: {use: resnext5}"), 2, "no backbone named 'resnext5'", "resnext50"),
    case("Y1", "unknown choice", above("optimizer: {use: adam}"), 2, "no optimizer named 'adam'", "'adamw'"),
    case("Y1", "unknown weights", above("backbone: {weights: hub}"), 2, "no weights named 'hub'", "known: auto"),
    case("Y1", "no dataset", text("seed: 1"), 2, "dataset: missing", "the smallest recipe is"),
    case("Y1", "no root", text("dataset: {use: folder}"), 2, "dataset.root: missing", "dataset 'folder' needs it"),
    case(
        "Y1",
        "text for a section",
        text("dataset: photos/"),
        2,
        "dataset: expected a mapping, got 'photos/'",
        "root: photos/}",
    ),
    case("Y1", "empty section", above("train:"), 2, "expected a mapping, got nothing", "or remove the key"),
    case(
        "Y1",
        "quoted number",
        above("optimizer: {lr: '1e-3'}"),
        2,
        "expected a number or 'auto', got '1e-3'",
        "remove the quotes",
    ),
    case("Y1", "float for a whole number", above("train: {epochs: 1e3}"), 2, "got 1000.0", "write 1000"),
    case("Y1", "true for a number", above("seed: true"), 2, "seed: expected a whole number, got true"),
    case("Y1", "number for true", above("head: {keep_pretrained: 1}"), 2, "expected true or false, got 1"),
    case("Y1", "no for false", above("head: {keep_pretrained: no}"), 2, "expected true or false, got 'no'", "false"),
    case("Y1", "octal", above("seed: 010"), 2, "expected a whole number, got '010'", "without the leading 0"),
    case("Y1", "sexagesimal", above("seed: 1:30"), 2, "seed: expected a whole number, got '1:30'"),
    case("Y1", "date", above("seed: 2024-01-01"), 2, "seed: expected a whole number, got '2024-01-01'"),
    case(
        "Y1",
        "comma in a number",
        above("optimizer: {lr: '0,1'}"),
        2,
        "expected a number or 'auto', got '0,1'",
        "write it wi",
    ),
    case("Y1", "underscore in a number", above("seed: 1_000"), 2, "got '1_000'", "write it without '_'"),
    case("Y1", "list for text", above("output: [a]"), 2, "output: expected text, got a list"),
    case("Y1", "mapping for a list", above("callbacks: {use: x}"), 2, "expected a list, got a mapping", "put '- '"),
    case("Y1", "too few channels", above("image: {mean: [0.5]}"), 2, "image.mean: must have at least 3 items, got 1"),
    case("Y1", "slash in the name", above("name: a/b"), 2, "name: must be 1 to 80 letters, digits", "got 'a/b'"),
    case(
        "Y1",
        "the same callback twice",
        above("callbacks: [{use: checkpoint}, {use: checkpoint}]"),
        2,
        "already at callbacks[0]",
    ),
    case(
        "Y1", "no home folder", above("output: ~nobody-has-this-name/x"), 2, "no home folder for", "write the full pat"
    ),
    case("Y1", "key given twice", above("seed: 1\nseed: 2"), 2, "r.yaml:2:1: seed: duplicate key", "is on line 1"),
    case("Y1", "tab for indentation", above("train:\n\tepochs: 3"), 2, "r.yaml:2:1: a tab character", "use spaces"),
    case("Y1", "colon out of place", above("a: b: c"), 2, "r.yaml:1:5: misplaced ':'", "check the indentation"),
    case("Y1", "quote not closed", text("a: 'b\nc: 1"), 2, "r.yaml:1:4: unclosed quote"),
    case("Y1", "bracket not closed", text("a: [1,"), 2, "unclosed bracket"),
    case("Y1", "empty file", text(""), 2, "r.yaml: empty", "the smallest recipe is"),
    case("Y1", "comments only", text("# nothing\n"), 2, "r.yaml: empty", "the smallest recipe is"),
    case("Y1", "list at the top", text("- a\n"), 2, "r.yaml:1:1: a recipe is a mapping such as", "not a list"),
    case("Y1", "text at the top", text("photos/"), 2, "r.yaml:1:1: a recipe is a mapping such as", "not text"),
    case("Y1", "two documents", above("seed: 1\n---"), 2, "a second document starts here", "a recipe is one document"),
    case("Y1", "NUL", text(b"seed: 1\nname: \0\n"), 2, "r.yaml:2:7: character U+0000 is not allowed", "remove it"),
    case("Y1", "UTF-16", text(FOLDER.encode("utf-16")), 2, "r.yaml: UTF-16 text", "save it as UTF-8"),
    case("Y1", "Latin-1", text("name: é".encode("latin-1")), 2, "r.yaml:1:7: not UTF-8 text", "save it as UTF-8"),
    case("Y1", "photo in place of a recipe", text(b"\xff\xd8\xff\xe0\0\x10JFIF"), 2, "r.yaml:1:1: not UTF-8 text"),
    case("Y1", "Python tag", above("a: !!python/object/apply:os.system [ls]"), 2, "tag '!!python/object/apply:os.sys"),
    case("Y1", "own tag", above("seed: !env SEED"), 2, "seed: tag '!env' is not supported", "write plain text"),
    case(
        "Y1",
        "merge key",
        above("train: {<<: {epochs: 1}}"),
        2,
        "merge keys (<<) are not supported",
        "write out the keys",
    ),
    case("Y1", "alias of nothing", above("train: *x"), 2, "r.yaml:1:8: train: no anchor '&x' above '*x'"),
    case("Y1", "alias that contains itself", above("seed: &a [1, *a]"), 2, "alias '*a' contains itself"),
    case("Y1", "alias bomb", text(NINES), 2, "r.yaml:5:", "more than 10000 keys and values"),
    case("Y1", "3,000 brackets", text("[" * 3000), 2, "r.yaml:1:65: nested more than 64 deep"),
    case("Y1", "3,000 braces", text("{a: " * 3000), 2, "nested more than 64 deep"),
    case(
        "Y1",
        "10 MB",
        text("seed: 1\n" + "#" * 10_000_000),
        2,
        "r.yaml: larger than 250 kB",
        "this does not look like a recipe",
    ),
    case("Y1", "100,000 values", text(f"a: [{'1,' * 100_000}]"), 2, "more than 10000 keys and values"),
    case("Y1", "three mistakes", above("seed: x\ntrain: {epoch: 1}\nhead: {use: mpl}"), 2, "3 mistakes in the recipe"),
    case("N6", "learning rate of 0", above("optimizer: {lr: 0}"), 2, "optimizer.lr: must be more than 0, got 0"),
    case("N6", "negative learning rate", above("optimizer: {lr: -1}"), 2, "optimizer.lr: must be more than 0, got -1"),
    case("N6", "learning rate not a number", above("optimizer: {lr: .nan}"), 2, "must be a finite number, got .nan"),
    case("N6", "infinite learning rate", above("optimizer: {lr: 1e999}"), 2, "must be a finite number, got .inf"),
    case("N6", "fewer epochs than none", above("train: {epochs: -1}"), 2, "train.epochs: must be at least 0, got -1"),
    case("N6", "empty batches", above("train: {batch_size: 0}"), 2, "train.batch_size: must be more than 0, got 0"),
    case(
        "N6",
        "warm-up longer than training",
        above("schedule: {warmup_epochs: 20}\ntrain: {epochs: 10}"),
        2,
        "20 is more than train.epo",
    ),
    case("N6", "a single fold", above("validate: {folds: 1}"), 2, "validate.folds: must be at least 2, got 1"),
    case("N6", "negative seed", above("seed: -1"), 2, "seed: must be at least 0, got -1"),
    case("N6", "images of 8 pixels", above("image: {size: 8}"), 2, "image.size: must be at least 16, got 8"),
    case("N6", "crop larger than the image", above("image: {size: 256, resize: 224}"), 2, "256 is more than image"),
    case("N6", "all of a class for validation", text("dataset: {use: folder, root: x, split: 1}"), 2, "must be less t"),
    case(
        "N6",
        "no stage trains first",
        above("freeze: {use: gradual, schedule: {2: head}}"),
        2,
        "the schedule starts with epoch 2",
        "start it with",
    ),
    case(
        "N6",
        "unknown stage",
        above("freeze: {use: stages, train: [layer9]}"),
        2,
        "freeze.train[0]: no stage matches 'layer9'",
        "'layer4'?",
    ),
    case("D11", "address without a hash", above("backbone: {weights: 'https://x.org/y.ckpt'}"), 2, "needs the sha256"),
    case("D11", "address of a kind", above(f"backbone: {{weights: 'ftp://x.org/y#sha256={'0' * 64}'}}"), 4, "ftp"),
    case("Y2", "no value", change("train.epochs"), 2, "override 'train.epochs': no '='", "write KEY=VALUE"),
    case("Y2", "no key", change("seed=1", "=3"), 2, "override '=3': not KEY=VALUE", "write the key like"),
    case("Y2", "space in a key", change("a b=3"), 2, "override 'a b=3': not KEY=VALUE", "write the key like"),
    case("Y2", "unknown key", change("train.epoch=3"), 2, "unknown key 'epoch'", "did you mean 'epochs'?"),
    case("Y2", "unknown key to delete", change("~callback"), 2, "no key 'callback' in the recipe", "'callbacks'?"),
    case("Y2", "value beside a deletion", change("~seed=3"), 2, "'~' removes a key; leave out the value"),
    case("Y2", "index too high", change("callbacks[7].keep=1"), 2, "'callbacks' has items [0] to [1] only"),
    case("Y2", "negative index", change("callbacks[-1]=3"), 2, "override 'callbacks[-1]=3': not KEY=VALUE"),
    case("Y2", "list without an index", change("callbacks.use=x"), 2, "'callbacks' is a list", "callbacks[0].use"),
    case("Y2", "key below a number", change("seed.x=1"), 2, "'seed' is 42, not a section"),
    case("Y2", "bracket not closed", change("seed=[1"), 2, "invalid value", "quote it to pass a string"),
    case("Y2", "value of the wrong type", change("train.epochs=many"), 2, "train.epochs: expected a whole number"),
    case("Y2", "alias that contains itself", change("seed=[&a [*a]]"), 2, "alias '*a' contains itself"),
    case("Y2", "bytes that are no text", change("output=/x/\udcff"), 2, "character U+DCFF is not allowed", "remove it"),
    case("Y2", "key of 40 parts", change(".".join("a" * 40) + "=1"), 2, "the key is nested too deeply"),
    case("Y2", "nothing to change", line("run", "seed=1"), 2, "no recipe given", "name a file"),
    case("Y4", "no such recipe", neighbour, 2, "flowers.yml: no such file", "did you mean 'flowers.yaml'?"),
    case("Y4", "no bundled recipe", line("run", "quikstart"), 2, "named 'quikstart'", "did you mean 'quickstart'?"),
    case("Y4", "folder in place of a recipe", line("run", "."), 2, ". is a folder, not a recipe", "the smallest"),
    case("Y4", "pipe in place of a recipe", pipe, 2, "r.yaml: not a regular file", "'-' reads standard input"),
    case("Y4", "link to itself", loop, 2, "r.yaml: cannot be read"),
    case("Y4", "name of 300 letters", line("check", f"{'x' * 300}.yaml"), 2, "xxx.yaml: cannot be read"),
    case("R13", "no such run", line("run", "--resume", "nowhere"), 2, "no run in nowhere", "name a folder that"),
    case("R13", "auto without a recipe", line("run", "--resume", "auto"), 2, "--resume auto needs a recipe"),
    case("R13", "folder without a recipe", unfinished, 2, "it has no recipe.yaml", "name a folder that"),
    case("Y5", "unknown command", line("rnu"), 2, "no such command 'rnu'", "Did you mean 'run'?"),
    case("Y5", "unknown option", line("run", "--resmue", "x"), 2, "no such option: --resmue", "--help"),
    case("Y5", "unknown form", line("export", "x", "--format", "coreml"), 2, "'coreml' is not one of", "'onnx'"),
    case("Y5", "unknown device", line("doctor", "--device", "tpu"), 2, "'tpu' is not one of", "'ascend'"),
    case("Y5", "nothing on offer to copy", line("cp", "quick"), 2, "named 'quick'", "did you mean 'quickstart'?"),
]
