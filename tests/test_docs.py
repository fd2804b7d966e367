"""The documentation: its code runs, commands and recipes are valid, links lead somewhere, nothing is left out."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

import finetune
from finetune import cli, plugins
from finetune.catalogue import Catalogue
from finetune.cli import source
from finetune.cli.app import parse_command_line
from finetune.cli.sweep import split_axes
from finetune.components import KINDS
from finetune.display import failures
from finetune.errors import DownloadError, FinetuneError, RecipeError
from finetune.recipe import plan
from finetune.version import DISTRIBUTION
from tests.drawn import folder
from tests.pages import anchors, blocks, commands, lines, links, prose, words

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.checkout

# Programs that pages name, beside those that are looked at below.
OTHERS = {"export", "ls", "tensorboard", "wget", "sudo", "source"}
# Names that a plugin needs and docs/plugins.md explains.
EXPLAINED = {"hookimpl", "Split", "Stage", "NoOptions", "IMAGENET_MEAN", "IMAGENET_STD"}
# Pages whose recipes, commands and code have a test of their own.
APART = {"plugins.md", "tutorials/first-plugin.md"}
# Commands that a text may name without what they need, and one that acts as soon as it is understood.
NAMED = {("run",), ("check",), ("eval",), ("predict",), ("pack",), ("weights", "inspect"), ("weights", "fetch")}
NAMED |= {("--install-completion",), ("new", "recipe")}


@pytest.fixture(scope="module")
def docs(repo: Path) -> dict[str, str]:
    """Return the pages of the site by name."""
    top = repo / "docs"
    found = {file.relative_to(top).as_posix(): file.read_text(encoding="utf-8") for file in sorted(top.rglob("*.md"))}
    assert len(found) > 25
    return found


@pytest.fixture
def place(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder that has what the pages speak of: photos, a recipe, the recipes that come along."""
    folder(tmp_path / "photos")
    first = sorted((tmp_path / "photos" / "red").iterdir())[0]
    (tmp_path / "new.jpg").write_bytes(first.read_bytes())
    recipe = blocks((repo / "docs" / "index.md").read_text(encoding="utf-8"), "yaml")[0]
    for name in ("my.yaml", "mine.yaml"):
        (tmp_path / name).write_text(recipe)
    (tmp_path / "recipes").symlink_to(repo / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Recipes and commands


def test_recipes_are_valid(docs: dict[str, str], tmp_path: Path) -> None:
    known = Catalogue(plugins.load_plugins())
    fragments = [(name, block) for name in docs.keys() - APART for block in blocks(docs[name], "yaml")]
    assert len(fragments) > 4
    for name, block in fragments:
        values = YAML(typ="safe").load(block)
        if "apiVersion" in values:  # a job of Kubernetes
            continue
        file = tmp_path / "block.yaml"
        file.write_text(block + ("" if "dataset" in values else "dataset: {use: folder, root: photos/}\n"))
        assert plan.load_plan(file, [], known).recipe.name == "block", name


def test_commands_are_understood(
    docs: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # whatever a page names, nothing of the user's is changed
    typed = [
        (name, words(line)[1:]) for name, text in docs.items() for line in lines(text) if words(line)[0] == "finetune"
    ]
    named = [(name, each) for name, text in docs.items() for each in commands(prose(text), "finetune")]
    assert len(typed) > 30
    assert len(named) > 30
    for name, arguments in (*typed, *named):
        if tuple(arguments) in NAMED:
            continue
        asked = parse_command_line(arguments)
        assert callable(asked) or capsys.readouterr().out.startswith(("Usage: ", "finetune ")), (name, arguments)
    assert list(tmp_path.iterdir()) == []


def test_changes_on_the_command_line_are_valid(docs: dict[str, str], place: Path) -> None:
    known = Catalogue(plugins.load_plugins())
    found = [
        (name, line, arguments[1:])
        for name in docs.keys() - APART
        for line in lines(docs[name])
        if (arguments := words(line)[1:])[:1] in (["run"], ["check"]) and "--resume" not in arguments
    ]
    assert len(found) > 15
    for name, line, arguments in found:
        given = [word for word in arguments if word != "--dry-run"]
        axes, rest = split_axes(source.parse_words(given), known, None)
        assert rest.plan(known).recipe.dataset.use, name
        assert bool(axes) == bool(re.search(r"\b(optimizer\.lr|seed)=\[", line)), line


def test_the_mistakes_shown_are_those_of_the_recipes_shown(docs: dict[str, str], place: Path) -> None:
    (text,) = (block for block in blocks(docs["recipes.md"], "text") if "mistakes in the recipe" in block)
    for name, recipe in re.findall(r"^\$ cat (\S+)\n(.*?)(?=^\$)", text, re.S | re.M):
        (place / name).write_text(recipe)
    with pytest.raises(RecipeError) as error:
        plan.load_plan(place / "mine.yaml", [], Catalogue(plugins.load_plugins()))
    told = [mistake.replace(f"{place}/", "") for mistake in error.value.mistakes]
    assert text.partition("mistakes in the recipe\n")[2].splitlines() == told


def test_other_programs_are_there(docs: dict[str, str], repo: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (repo / "Makefile").read_text(encoding="utf-8"), re.M))
    checked = 0
    for name, text in (*docs.items(), ("CONTRIBUTING.md", (repo / "CONTRIBUTING.md").read_text(encoding="utf-8"))):
        for line in lines(text):
            program, *arguments = [word for word in words(line) if not re.match(r"[A-Z_]+=", word)]
            files = [word for word in arguments if word.endswith((".py", ".toml"))]
            assert program in {"finetune", "make", "python", "pip", "pytest"} | OTHERS, (name, line)
            assert all((repo / file).is_file() or f"# {file}\n" in text for file in files), (name, line)
            assert program != "make" or set(arguments) <= targets, (name, line)
            checked += 1
    assert checked > 40


# Code


def test_get_started_works_from_its_first_step_to_its_last(docs: dict[str, str], place: Path) -> None:
    type_in(docs["index.md"])
    (place / "photos").rename(place / "new-photos")
    type_in(docs["how-to/predict-and-export.md"].replace("photos/ ", "new-photos/ "))
    exec(compile("\n".join(blocks(docs["how-to/predict-and-export.md"], "python")), "page", "exec"), {})
    assert (place / "labels.csv").is_file()
    assert (place / "flowers.mindir").is_file()


def test_settings_are_compared_as_shown(docs: dict[str, str], place: Path) -> None:
    sweep, resume, rate, *_ = (line for line in lines(docs["how-to/compare-settings.md"]) if "finetune" in line)
    for line in (sweep.replace("epochs=10", "epochs=2"), resume, f"{rate} --steps 20"):
        assert cli.main(words(line)[1:]) == 0, line
    assert len(list((place / "runs").glob("my-sweep-001/*-lr-*"))) == 3
    assert (place / "lr.svg").is_file()


def type_in(text: str) -> None:
    """Run the commands of a page, except for the quickstart, which takes long, and files that exist by then."""
    for line in lines(text):
        program, *arguments = words(line)
        if program == "finetune" and arguments != ["run", "quickstart"]:
            force = ["--force"] if arguments[0] == "export" else []
            assert cli.main([*arguments, *force]) == 0, line


@pytest.mark.parametrize("page", ["api.md", "how-to/find-wrong-labels.md", "how-to/notebook.md"])
def test_code_in_python_runs(docs: dict[str, str], place: Path, page: str) -> None:
    exec(compile("\n".join(blocks(docs[page], "python")), page, "exec"), {})


def test_code_about_results_runs(docs: dict[str, str], place: Path) -> None:
    (place / "mine.yaml").write_text("dataset: {use: folder, root: photos}\nbackbone: {use: resnext_nano}\n")
    assert cli.main(["run", "mine.yaml", "image.size=64", "image.resize=64"]) == 0
    (place / "photo.jpg").write_bytes((place / "new.jpg").read_bytes())
    for page in ("how-to/read-results.md", "how-to/trust-predictions.md"):
        (code,) = blocks(docs[page], "python")
        exec(compile(code.replace('"daisy"', '"blue"'), page, "exec"), {})
    assert (place / "map.png").is_file()


def test_code_that_needs_a_download_runs_up_to_it(
    docs: dict[str, str], place: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(docs["weights.md"], "python")
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="FINETUNE_OFFLINE"):
        exec(compile(f"from finetune import Finetuner\n{code}", "weights.md", "exec"), {})


def test_every_block_of_python_is_run_by_some_test(docs: dict[str, str]) -> None:
    assert {name for name, text in docs.items() if blocks(text, "python")} == {
        *("api.md", "how-to/find-wrong-labels.md", "how-to/notebook.md", "how-to/predict-and-export.md", "weights.md"),
        *("tutorials/first-model.md", "tutorials/first-plugin.md"),  # by test_tutorials.py
        *("how-to/read-results.md", "how-to/trust-predictions.md"),
        "plugins.md",  # by test_docs_plugins.py
    }


def test_blocks_say_their_language(docs: dict[str, str]) -> None:
    known = {"python", "yaml", "console", "toml", "text", "bash"}
    opened = {name: re.findall(r"^```(.+)$", text, re.M) for name, text in docs.items()}
    assert not {(name, each) for name, found in opened.items() for each in found if each not in known}
    assert all(len(re.findall(r"^```$", docs[name], re.M)) == len(found) for name, found in opened.items())


# Links, pictures and pages


def test_links_lead_somewhere(docs: dict[str, str], repo: Path) -> None:
    texts = {repo / "docs" / name: text for name, text in docs.items()}
    others = [*repo.glob("*.md"), *(repo / "examples").rglob("*.md")]
    texts |= {file: file.read_text(encoding="utf-8") for file in others}
    checked = 0
    for file, text in texts.items():
        for link in links(text):
            assert alive(link, file), f"{file.relative_to(repo)}: {link}"
            checked += 1
    assert checked > 50


def alive(link: str, file: Path) -> bool:
    """Tell whether a link leads to a file and a heading that there are; other sites are not visited."""
    if "://" in link:
        address = urlsplit(link)
        return address.scheme == "https" and "." in address.netloc and " " not in link
    path, _, name = link.partition("#")
    target = file.parent / path if path else file
    return target.exists() and (not name or name in anchors(target.read_text(encoding="utf-8")))


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `title`, here\n\n```python\n# no title\n```\n")
    assert alive("page.md#a-title-here", page)
    assert alive("#a-title-here", page)
    dead = ("other.md", "#no-title", "page.md#b", "http://example.org", "https://example", "https:///a.b")
    assert not [link for link in dead if alive(link, page)]


def test_every_page_is_in_the_navigation(docs: dict[str, str], repo: Path) -> None:
    text = (repo / "mkdocs.yml").read_text(encoding="utf-8")
    assert Counter(re.findall(r"^ +- .+: (\S+\.md)$", text, re.M)) == Counter(list(docs))


def test_tutorials_and_guides_are_under_their_headings_and_say_what_they_are_for(
    docs: dict[str, str], repo: Path
) -> None:
    nav = (repo / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    sections = dict(re.findall(r"^  - ([\w -]+):\n((?:      .*\n)+)", nav, re.M))
    assert list(sections) == ["Tutorials", "How-to guides", "Reference", "Explanation"]
    opening = {"tutorials": ("Tutorials", "In this tutorial"), "how-to": ("How-to guides", "This guide shows how to ")}
    for name, text in docs.items():
        section, words = opening.get(name.partition("/")[0], ("", ""))
        assert not section or f": {name}\n" in sections[section], name
        assert re.match(rf"# .+\n\n{words}\w*", text), name


def test_the_build_counts_warnings(repo: Path) -> None:
    recipe = (repo / "Makefile").read_text(encoding="utf-8").partition("\ndocs:")[2].partition("\n\n")[0]
    assert "mkdocs build --strict" in recipe
    assert "quiet" not in recipe, "mkdocs counts only the warnings that it shows"


def test_the_site_loads_nothing_from_elsewhere(repo: Path) -> None:
    site = runpy.run_path(str(repo / "docs" / "making" / "site.py"))
    page = site["Loads"]()
    page.feed('<img src="//a.b/c.png"><a href="https://a.b"><script src="https://a.b/c"></script><link href="x.css">')
    assert page.found == ["//a.b/c.png", "https://a.b/c"]
    text = "[`a.py`](../a.py), [this](../b/c.md) and [that](d.md)\n```text\n[e](../f)\n```\n"
    shown = "`a.py`, this (`b/c.md`) and [that](d.md)\n```text\n[e](../f)\n```\n"
    assert site["on_page_markdown"](text) == shown
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/a.md"))
    assert site["on_page_markdown"]("[a](../b.md) [c](../../d.md)", page) == "[a](../b.md) c (`d.md`)"


def test_pictures_are_small_whole_and_used(docs: dict[str, str], repo: Path) -> None:
    from xml.etree import ElementTree

    found = sorted((repo / "docs" / "pictures").iterdir())
    used = {link.rpartition("/")[2] for text in docs.values() for link in links(text) if "pictures/" in link}
    assert {file.name for file in found} == used
    for file in found:
        assert file.stat().st_size < 60_000, file
        if file.suffix == ".svg":
            text = file.read_text(encoding="utf-8")
            assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
            assert not re.search(r"(href|src|url\()\W{0,2}(https?:)?//|<script|@import", text), file
    described = [text for page in docs.values() for text in re.findall(r"!\[([^\]]*)\]", page)]
    assert min(map(len, described)) > 40, "a picture says in words what is on it"


def test_pictures_show_what_the_program_shows(repo: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    making = repo / "docs" / "making"
    recipe = re.search(r'^MISTAKES = "(.*)"$', (making / "pictures.py").read_text(encoding="utf-8"), re.M)
    assert recipe is not None
    (place / "my.yaml").write_text(recipe[1].replace("\\n", "\n"))
    assert cli.main(["check", "my.yaml"]) == 2
    for line in capfd.readouterr().err.splitlines()[1:]:
        assert line in shown(repo, "mistakes.svg")
    from finetune.display import epochtable

    assert epochtable.format_header(epochtable.choose_columns(96, "accuracy")).strip() in shown(repo, "run.svg")


def shown(repo: Path, name: str) -> str:
    """Return the text of a picture of a terminal."""
    from xml.etree import ElementTree

    tree = ElementTree.parse(repo / "docs" / "pictures" / name)
    rows: dict[float, list[tuple[float, str]]] = {}
    for text in tree.iter("{http://www.w3.org/2000/svg}text"):
        rows.setdefault(float(text.get("y", 0)), []).append((float(text.get("x", 0)), text.text or ""))
    return "\n".join("".join(part for _, part in sorted(row)) for row in rows.values()).replace("\xa0", " ")


def test_a_terminal_is_read_as_it_looks(repo: Path) -> None:
    screen: Any = runpy.run_path(str(repo / "docs" / "making" / "screen.py"))["read_lines"]
    assert screen("one\r\ntwo\r\n") == ["one", "two", ""]
    assert screen("bar 1\r\x1b[2Kbar 2\r\x1b[2Krow\r\nbar 3") == ["row", "bar 3"]
    assert screen("a\r\nb\r\n\x1b[1A\x1b[2Kc\x1b[?25h") == ["a", "c", ""]
    assert screen("\x1b[32mgreen\x1b[0m") == ["\x1b[32mgreen\x1b[0m"]


# Nothing is left out


def test_the_reference_is_what_the_program_says(docs: dict[str, str], repo: Path) -> None:
    reference = runpy.run_path(str(repo / "docs" / "making" / "reference.py"))
    for name, text in reference["pages"]().items():
        assert docs[name] == text, f"docs/{name} is out of date; run: make reference"
    verbs = [" ".join(verb) for verb in reference["command_names"]()]
    assert {"run", "weights inspect"} <= set(verbs)
    assert re.findall(r"^## finetune (.*)$", docs["commands.md"], re.M) == verbs


def test_every_component_and_option_is_explained(docs: dict[str, str]) -> None:
    own = [each for origin, each in Catalogue(plugins.load_plugins()) if origin.distribution == DISTRIBUTION]
    assert {type(each) for each in own} == set(KINDS)
    for component in own:
        title = f"### {component.kind}: {component.name}\n"
        assert docs["components.md"].count(title) == 1
        section = docs["components.md"].partition(title)[2].partition("\n### ")[0]
        for name, field in component.options.model_fields.items():
            row = re.search(rf"^\| `{field.alias or name}` \|.*\| (.+) \|$", section, re.M)
            assert row is not None, f"{title}: {name}"
            assert len(row[1]) > 15, f"{component.kind} {component.name}: say what '{name}' is in a string below it"


def test_every_public_name_is_documented(docs: dict[str, str]) -> None:
    listed = re.findall(r"^::: finetune\.(\w+)$", docs["api.md"], re.M)
    assert Counter(listed) == Counter(set(finetune.__all__) - EXPLAINED)
    assert all(re.search(rf"\b{name}\b", docs["plugins.md"] + docs["api.md"]) for name in ("hookimpl",))
    assert all(getattr(finetune, name).__doc__ for name in listed)


def test_every_exit_code_and_variable_is_documented(docs: dict[str, str], repo: Path) -> None:
    text = docs["commands.md"]
    codes = re.findall(r"^\| (\d[\d, ]*) \|", text.partition("## Exit codes")[2].partition("\n## ")[0], re.M)
    assert {int(code) for row in codes for code in row.split(", ")} == failures.CODES | {0}
    sources = [file.read_text(encoding="utf-8") for file in (repo / "finetune").rglob("*.py")]
    read = {name for source in sources for name in re.findall(r'"(FINETUNE_[A-Z_]+)"', source)}
    internal = {"FINETUNE_LAUNCH", "FINETUNE_PROBED_BACKBONE"}  # what a parent process tells its children
    documented = set(re.findall(r"^\| `(FINETUNE_[A-Z_]+)` \|", text, re.M))
    assert documented == read - internal


def test_every_class_of_error_is_asserted(repo: Path) -> None:
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (repo / "tests").rglob("test_*.py"))
    public = [name for name in vars(finetune.errors) if is_error(getattr(finetune.errors, name))]
    assert len(public) > 8
    for name in public:
        assert re.search(rf"raises\([^)]*\b{name}\b", tests), f"no test expects a {name}"


def is_error(value: object) -> bool:
    """Tell whether a value is one of the project's error classes."""
    return isinstance(value, type) and issubclass(value, FinetuneError)


def test_the_guide_for_contributors_names_files_that_exist(repo: Path) -> None:
    text = (repo / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:finetune|plugins|model|tests|docs|tools|recipes)/[\w./-]*)`", text)
    assert len(named) > 30
    assert [name for name in named if "NAME" not in name and not (repo / name).exists()] == []


def test_prose_names_no_machine(docs: dict[str, str]) -> None:
    for name, text in docs.items():
        assert not re.search(r"/(home|root|tmp|work)/\w", prose(text)), name
