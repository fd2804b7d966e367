"""Print the figures of the code's structure: sizes, circles of imports, and imports against the order of layers.

    python tools/house.py [--list]

``--list`` names what is counted. The order of layers, its exceptions and the bounds are at the top of this file, and
``tests/test_layers.py`` holds the code to them.
"""

from __future__ import annotations

import argparse
import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Kind = Literal["module", "lazy", "type"]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT, ROOT / "model", ROOT / "plugins")  # folders that packages lie in
PACKAGES = ("finetune", "finetune_model", "finetune_plugins")
LEFT_OUT = ("templates",)  # folders with files for somebody else's project
LAYERS = (  # from the bottom up: modules and packages of finetune
    *("errors", "text", "version", "normalisation", "suggest"),
    *("components", "hookspecs", "plugins", "catalogue", "files", "machine", "recipe", "run", "distributed", "data"),
    *("fitting", "confidence", "network", "weights", "features", "display", "model", "explain", "report"),
    *(
        "training",
        "audit",
        "review",
        "compare",
        "launch",
        "doctor",
        "sweep",
        "new",
        "testing",
        "fitted",
        "finetuner",
        "cli",
    ),
)
EXCEPTIONS = {  # imports that run up, each with its reason
    ("components", "recipe"): "the type of a recipe, in the facts that a check of options is given",
    ("hookspecs", "run"): "the type of a run, in the arguments of hooks",
    ("run", "display"): "a run in a notebook shows itself",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One module of ours that another one imports: as it is imported, in a function, or for types only."""

    importer: str
    imported: str
    kind: Kind
    line: int


@dataclass(frozen=True, slots=True)
class Module:
    """A file: its dotted name, its path, its number of lines, and its functions with theirs."""

    name: str
    path: Path
    lines: int
    functions: tuple[tuple[str, int], ...]
    imports: tuple[Import, ...]


def read_modules() -> dict[str, Module]:
    """Return all modules by their names."""
    paths = {name: path for source in SOURCES for name, path in _find(source)}
    return {name: _read(name, path, paths) for name, path in sorted(paths.items())}


def _find(source: Path) -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((source / package).rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            if not any(part in LEFT_OUT for part in parts):
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _read(name: str, path: Path, known: Mapping[str, Path]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = tuple(
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    found = tuple(Import(name, other, kind, line) for other, kind, line in _imports(tree, known) if other != name)
    return Module(name=name, path=path, lines=len(text.splitlines()), functions=functions, imports=found)


def _imports(tree: ast.Module, known: Mapping[str, Path]) -> Iterator[tuple[str, Kind, int]]:
    """Yield what is imported; an import in a function is lazy, one under ``if TYPE_CHECKING`` is for types."""

    def visit(node: ast.AST, kind: Kind) -> Iterator[tuple[str, Kind, int]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for each in node.body:
                yield from visit(each, "type")
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            kind = "lazy" if kind == "module" else kind
        if isinstance(node, ast.Import):
            yield from ((alias.name, kind, node.lineno) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in known else str(node.module)), kind, node.lineno
        for each in ast.iter_child_nodes(node):
            yield from visit(each, kind)

    yield from visit(tree, "module")


def find_circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of two or more nodes that reach one another, the largest first (Tarjan 1972)."""
    following: dict[str, list[str]] = {}
    for first, second in edges:
        following.setdefault(first, []).append(second)
        following.setdefault(second, [])
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in following[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in following:
        if node not in index:
            visit(node)
    return sorted(found, key=len, reverse=True)


def package_of(module: str, modules: Mapping[str, Module]) -> str:
    """Return the folder of a module below ``finetune``, or the module itself where it lies in no folder."""
    parts = module.split(".")
    if parts[0] != "finetune" or len(parts) == 1:
        return parts[0]
    name = ".".join(parts[:2])
    return name if modules[name].path.name == "__init__.py" else module


def find_upward(imports: Iterable[Import], modules: Mapping[str, Module]) -> list[Import]:
    """Return the imports of a layer above the importer's own."""
    rank = {f"finetune.{name}": place for place, name in enumerate(LAYERS)}
    pairs = [(each, package_of(each.importer, modules), package_of(each.imported, modules)) for each in imports]
    return [
        each for each, own, other in pairs if own in rank and other in rank and rank[other] > rank[own]
    ]  # others are plugins, which `tests/test_layers.py` looks after, and `finetune` itself


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the circles and the imports against the order")
    given = parser.parse_args()
    sys.setrecursionlimit(10_000)
    modules = read_modules()
    imports = [each for module in modules.values() for each in module.imports]
    run = [each for each in imports if each.kind != "type"]
    largest = max(modules.values(), key=lambda module: module.lines)
    length, function = max(
        (lines, f"{module.name}.{name}") for module in modules.values() for name, lines in module.functions
    )
    circles = find_circles((each.importer, each.imported) for each in run)
    with_types = find_circles((each.importer, each.imported) for each in imports)
    packages = find_circles(_between_packages(run, modules))
    print(f"files                           {len(modules)}")
    print(f"lines                           {sum(module.lines for module in modules.values()):,}")
    print(f"largest file                    {largest.lines} {largest.name}")
    print(f"longest function                {length} {function}")
    print(f"lazy imports                    {sum(each.kind == 'lazy' for each in imports)}")
    print(f"circles of files                {[len(each) for each in circles]}")
    print(f"circles of files, types too     {[len(each) for each in with_types]}")
    print(f"circles of packages             {[len(each) for each in packages]}")
    upward = find_upward(imports, modules)
    print(f"imports against the order       {len(upward)}")
    if given.list:
        for group in (*circles, *with_types, *packages):
            print("\n" + "\n".join(group))
        print(
            "\n" + "\n".join(f"{each.importer} -> {each.imported} ({each.kind}, line {each.line})" for each in upward)
        )


def _between_packages(imports: Iterable[Import], modules: Mapping[str, Module]) -> set[tuple[str, str]]:
    pairs = {(package_of(each.importer, modules), package_of(each.imported, modules)) for each in imports}
    return {(first, second) for first, second in pairs if first != second}


if __name__ == "__main__":
    main()
