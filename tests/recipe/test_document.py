"""Reading recipes: what YAML is accepted, what is refused and where, and how long the worst of them takes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.recipe.document import Document, parse_bytes, read_recipe
from finetune.recipe.nodes import dumps, parse_scalar
from finetune.recipe.places import format_path
from tests.clocks import least_processor_time

FOLDER = Path("/recipes")


def parsed(text: str | bytes) -> Document:
    return parse_bytes(text if isinstance(text, bytes) else text.encode(), "recipe.yaml", FOLDER)


def mistakes(text: str | bytes) -> list[str]:
    """Return what is wrong, whether or not it stopped the reading."""
    try:
        return [str(mistake) for mistake in parsed(text).mistakes]
    except RecipeError as error:
        return list(error.mistakes)


def mistakes_in(path: Path) -> list[str]:
    try:
        return [str(mistake) for mistake in read_recipe(path).mistakes]
    except RecipeError as error:
        return list(error.mistakes)


SCALARS: list[tuple[str, Any]] = [
    ("1e-3", 0.001),
    ("1.", 1.0),
    (".5", 0.5),
    ("-0.5E+2", -50.0),
    ("+7", 7),
    ("0", 0),
    ("0x1F", 31),
    ("0o17", 15),
    ("true", True),
    ("False", False),
    ("~", None),
    ("", None),
    (".inf", float("inf")),
    ("no", "no"),
    ("off", "off"),
    ("010", "010"),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("2024-01-01", "2024-01-01"),
    ("0x", "0x"),
    ("0xZZ", "0xZZ"),
    ("+", "+"),
    ("'1'", "1"),
    ('"true"', "true"),
    ("9" * 5000, "9" * 5000),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text[:12] or "empty" for text, _ in SCALARS])
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    result = parsed(f"key: {text}").values["key"]
    assert result == value
    assert type(result) is type(value)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert list(parsed("1: a\n007: b\ntrue: c\n1.5: d\n2024-01-01: e\n~: f\n'x y': g\n").values) == [
        *("1", "007", "true", "1.5", "2024-01-01", "~", "x y"),
    ]


def test_every_value_has_the_place_of_its_key() -> None:
    document = parsed("# a comment\ntrain: {epochs: 3, lr: 1}\nlist:\n  - a\n  - {b: c}\n")
    places = {format_path(path): document.place(path)[:2] for path in (("train", "lr"), ("list", 0), ("list", 1, "b"))}
    assert places == {"train.lr": (2, 20), "list[0]": (4, 5), "list[1].b": (5, 6)}
    assert document.place(("train", "epoch")).text == "recipe.yaml:2:1", "the nearest place above"
    assert document.place(("list", 7)).text == "recipe.yaml:3:1"
    assert document.place(("list", 1, "b")).folder == FOLDER


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_line_end_and_a_byte_order_mark_are_fine(newline: str) -> None:
    text = newline.join(["a: 1", "b:", "  c: é"])
    document = parsed(b"\xef\xbb\xbf" + text.encode())
    assert document.values == {"a": 1, "b": {"c": "é"}}
    assert document.place(("b", "c"))[:2] == (3, 3)


def test_json_is_a_recipe_too() -> None:
    assert parsed('{"a": {"b": [1, 2.5, null, "\\ud83c\\udf37 \\/"]}}').values == {"a": {"b": [1, 2.5, None, "🌷 /"]}}


def test_aliases_are_copies() -> None:
    document = parsed("a: &x {b: [1]}\nc: *x\n")
    assert document.values == {"a": {"b": [1]}, "c": {"b": [1]}}
    assert document.root.value["a"].value["b"] is not document.root.value["c"].value["b"]


BAD: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "recipe.yaml: empty; the smallest recipe is 'dataset: {use: folder, root: photos/}'"),
    ("comments only", "# nothing\n\n", "recipe.yaml: empty; the smallest recipe is"),
    ("null", "~", "recipe.yaml: empty; the smallest recipe is"),
    (
        "list",
        "\n- a\n",
        "recipe.yaml:2:1: a recipe is a mapping such as 'dataset: {use: folder, root: photos/}', not a",
    ),
    ("text", "photos/", "recipe.yaml:1:1: a recipe is a mapping such as"),
    ("two documents", "a: 1\n---\nb: 2\n", "recipe.yaml:2:1: a second document starts here; a recipe is one document"),
    ("duplicate", "a: 1\nb: {c: 1, c: 2}\na: 3\n", "recipe.yaml:2:11: b.c: duplicate key; the first one is on line 2"),
    ("tab indent", "train:\n\tepochs: 3\n", "recipe.yaml:2:1: a tab character; use spaces"),
    ("tab after colon", "a:\t1\n", "recipe.yaml:1:3: a tab character; use spaces"),
    ("NUL", "a: 1\nb: \0\n", "recipe.yaml:2:4: character U+0000 is not allowed; remove it"),
    ("DEL", "a: \x7f", "recipe.yaml:1:4: character U+007F is not allowed; remove it"),
    ("UTF-16", "a: 1".encode("utf-16"), "recipe.yaml: UTF-16 text; save it as UTF-8"),
    ("UTF-16 without mark", "a: 1".encode("utf-16-be"), "recipe.yaml:1:1: character U+0000 is not allowed; remove it"),
    ("Latin-1", "a: 1\nb: é".encode("latin-1"), "recipe.yaml:2:4: not UTF-8 text; save it as UTF-8"),
    (
        "python tag",
        "a: !!python/object/apply:os.system [ls]",
        "recipe.yaml:1:4: a: tag '!!python/object/apply:os.system'",
    ),
    ("own tag", "a: {b: !env HOME}", "recipe.yaml:1:8: a.b: tag '!env' is not supported; write plain text,"),
    ("core tag", "a: !!str 3", "recipe.yaml:1:4: a: tag '!!str' is not supported; write plain text, numbers,"),
    ("tag handle", "a: !e!x 3", "recipe.yaml:1:4: tags (!name) are not supported"),
    (
        "merge",
        "a: &a {b: 1}\nc: {<<: *a}",
        "recipe.yaml:2:5: c: merge keys (<<) are not supported; write out the keys",
    ),
    ("alias of nothing", "a: *b", "recipe.yaml:1:4: a: no anchor '&b' above '*b'"),
    ("recursive alias", "a: &a [1, *a]", "recipe.yaml:1:11: a[1]: alias '*a' contains itself"),
    ("list as key", "? [a]\n: 1", "recipe.yaml:1:3: a key must be a string, not a list, a mapping or an alias"),
    ("YAML 1.1", "%YAML 1.1\n---\na: no", "recipe.yaml:2:1: unsupported YAML version; recipes are YAML 1.2"),
    ("lone surrogate", 'a: "\\ud800"', "recipe.yaml:1:4: a: invalid escape in quotes"),
    ("NUL escape", 'a: "\\0"', "recipe.yaml:1:4: a: invalid escape in quotes"),
    ("beyond Unicode", 'a: "\\UFFFFFFFF"', "recipe.yaml:1:1: invalid YAML here or below"),
    ("colon", "a: b: c", "recipe.yaml:1:5: misplaced ':'; check the indentation, the quotes and the space after ':'"),
    ("no space", "a:1\nb: 2", "recipe.yaml:2:2: misplaced ':'; check the indentation"),
    ("indentation", "a: 1\n b: 2", "recipe.yaml:2:3: misplaced ':'; check the indentation"),
    ("mixed", "- a\nb: 1", "recipe.yaml:2:1: inconsistent indentation; align it with the lines above"),
    ("bracket", "a: [1, 2\nb: 3", "recipe.yaml:2:2: not YAML: expected ',' or ']', but got ':'"),
    ("open bracket", "a: 1\nb: [1,", "recipe.yaml:2:7: unclosed bracket"),
    ("extra bracket", "{a: 1}}", "recipe.yaml:1:7: inconsistent indentation; check indentation and brackets"),
    ("open quote", "a: 'b\nc: 1", "recipe.yaml:1:4: unclosed quote"),
    ("at sign", "a: @b", "recipe.yaml:1:4: found character '@' that cannot start any token; put the text in quotes"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_recipe_is_refused_with_its_place(text: str | bytes, message: str) -> None:
    found = mistakes(text)
    assert any(mistake.startswith(message) for mistake in found), found


def test_several_mistakes_are_found_at_once() -> None:
    assert len(mistakes("a: !x 1\na: 2\n<<: {b: 1}\nc: *d\n---\ne: 1")) == 5


NINES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "".join(f"k{i}: &k{i} {'[' * 50}{f'*k{i - 1}' if i else 1}{']' * 50}\n" for i in range(40))
BOMBS: list[tuple[str, str | bytes, str]] = [
    ("aliases", NINES, "recipe.yaml:5:"),
    ("deep aliases", CHAIN, "recipe.yaml:2:59: nested more than 64 deep"),
    ("10 MB", "a: 1\n" + "#" * 10_000_000, "recipe.yaml: larger than 250 kB; this does not look like a recipe"),
    ("deep brackets", "[" * 3000, "recipe.yaml:1:65: nested more than 64 deep"),
    ("deep braces", "{a: " * 3000, "recipe.yaml:1:257: nested more than 64 deep"),
    ("deep pairs", "[{" * 3000, "recipe.yaml:1:65: nested more than 64 deep"),
    ("deep lists", "- " * 3000, "recipe.yaml:1:131: nested more than 64 deep"),
    ("deep lines", "".join(f"{' ' * i}a:\n" for i in range(600)), "recipe.yaml:66:66: nested more than 64 deep"),
    ("deep keys", "? " * 3000, "recipe.yaml:1:3: a key must be a string"),
    ("many values", f"a: [{'1,' * 100_000}]", "recipe.yaml:1:19999: more than 10000 keys and values"),
    ("many keys", "".join(f"k{i}: 1\n" for i in range(25_000)), "recipe.yaml:5000:8: more than 10000 keys and values"),
    ("many documents", "---\n" * 60_000, "recipe.yaml:2:1: a second document starts here"),
    ("directives", "%a b\n" * 49_000, "recipe.yaml:49001:1: inconsistent indentation"),
    ("long text", f"a: '{'x y ' * 60_000}", "recipe.yaml:1:4: unclosed quote"),
    ("open lines", "a: [" + "'x\n'" * 60_000, "recipe.yaml:1:4: unclosed bracket"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in BOMBS], ids=[row[0] for row in BOMBS])
def test_bombs_are_refused_in_a_second_and_little_memory(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    found: list[str] = []
    assert least_processor_time(lambda: found.extend(mistakes_in(path)), 1.0) < 1.0
    assert found[0].removeprefix(f"{tmp_path}/").startswith(message)


def test_memory_is_bounded(tmp_path: Path) -> None:
    for number, (_, text, _) in enumerate(BOMBS):
        (tmp_path / f"{number}.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    script = (
        "import sys\nfrom pathlib import Path\nfrom finetune.recipe.document import read_recipe\n"
        "from finetune.errors import RecipeError\n"
        "for path in Path(sys.argv[1]).iterdir():\n try: read_recipe(path)\n except RecipeError: pass\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    kilobytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert kilobytes < 200_000


@given(st.text(max_size=200) | st.text(alphabet="ab: -[]{},&*!|>'\"%#\n\t?0.e\\<", max_size=200))
def test_any_text_is_a_document_or_a_recipe_error(text: str) -> None:
    assert isinstance(mistakes(text.encode("utf-8", "surrogatepass")), list)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_recipe_error(content: bytes) -> None:
    assert isinstance(mistakes(content), list)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.sampled_from([text for text, _ in SCALARS[:-1]]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=32)), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=32)), VALUES, min_size=1))
def test_what_is_written_reads_the_same(values: dict[str, Any]) -> None:
    assert parsed(dumps(values)).values == values


def test_writing_is_readable() -> None:
    text = dumps({"schedule": {"1": "head", "010": "x"}, "ops": [{"size": [1, 2]}], "words": ["no", "1e3", "null", ""]})
    assert text == (
        "schedule:\n  1: head\n  '010': x\nops:\n- size: [1, 2]\nwords: [no, \"1e3\", \"null\", \"\"]\n"
    )  # fmt: skip
    assert parse_scalar("no") == "no"


class TestSources:
    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a: 1\nb: !x 2\n")))
        document = read_recipe("-")
        assert document.values["a"] == 1
        assert str(document.mistakes[0]).startswith("<stdin>:2:4: b: tag")
        assert document.place(("a",)).folder == Path.cwd()

    @pytest.mark.parametrize("stream", [None, io.StringIO("a: 1")])
    def test_no_standard_input(self, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(RecipeError, match="<stdin>: no standard input available; name a file"):
            read_recipe("-")

    def test_standard_input_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Path("/dev/zero").open() as zero:
            monkeypatch.setattr(sys, "stdin", zero)
            with pytest.raises(RecipeError, match="<stdin>: larger than 250 kB"):
                read_recipe("-")

    @pytest.mark.parametrize("name", ["a b.yaml", "中文.yaml", "x" * 200 + ".yaml", "new\nline.yaml"])
    def test_any_file_name(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text("a: !x 1")
        document = read_recipe(path)
        assert document.place(("a",)).folder == tmp_path.resolve()
        assert "\n" not in str(document.mistakes[0])

    def test_folder_behind_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        (tmp_path / "real" / "recipe.yaml").write_text("a: 1")
        assert read_recipe(tmp_path / "link" / "recipe.yaml").place(("a",)).folder == (tmp_path / "real").resolve()

    def test_read_only_folder(self, tmp_path: Path) -> None:
        (tmp_path / "recipe.yaml").write_text("a: 1")
        tmp_path.chmod(0o500)
        try:
            assert read_recipe(tmp_path / "recipe.yaml").values == {"a": 1}
        finally:
            tmp_path.chmod(0o700)

    def test_missing_file_with_a_neighbour(self, tmp_path: Path) -> None:
        (tmp_path / "flowers.yaml").touch()
        with pytest.raises(RecipeError, match=r"flower\.yml: no such file; did you mean 'flowers\.yaml'\?"):
            read_recipe(tmp_path / "flower.yml")

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"recipe\.yaml: no such file$"):
            read_recipe(tmp_path / "none" / "recipe.yaml")

    def test_folder_and_pipe_instead_of_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(RecipeError, match="not a regular file; '-' reads standard input"):
                read_recipe(path)

    @pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
    def test_impossible_names(self, name: str) -> None:
        with pytest.raises(RecipeError):
            read_recipe(Path(name))

    def test_python_values(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        values: Any = {"path": Path("a/b"), "list": (1, np.int64(2), np.float32(0.5)), 3: {"x": None, "y": True}}
        document = read_recipe(values)
        assert document.values == {"path": "a/b", "list": [1, 2, 0.5], "3": {"x": None, "y": True}}
        assert document.place(("list", 1)).folder == Path.cwd()

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({1, 2}, "recipe: a.b: unsupported value of type set"),
            (b"x", "recipe: a.b: unsupported value of type bytes"),
            (np.zeros(3), "recipe: a.b: unsupported value of type ndarray"),
            ("\ud800", "recipe: a.b: unsupported value '\\ud800'"),
            (10**5000, "recipe: a.b: unsupported value of type int"),
            ({1: 2, "1": 3}, "recipe: a.b: key '1' is not a string, or is duplicated"),
            ({None: 1}, "recipe: a.b: key of type NoneType is not a string, or is duplicated"),
            ({"\ud800": 1}, "recipe: a.b: key '\\ud800' is not a string, or is duplicated"),
            ({10**5000: 1}, "recipe: a.b: key of type int is not a string, or is duplicated"),
        ],
        ids=["set", "bytes", "array", "surrogate", "huge", "double key", "no key", "key without text", "huge key"],
    )
    def test_python_values_that_no_recipe_holds(self, value: Any, message: str) -> None:
        (mistake,) = read_recipe({"a": {"b": value}}).mistakes
        assert str(mistake).startswith(message)

    def test_python_values_that_contain_themselves(self) -> None:
        values: dict[str, Any] = {}
        values |= {"a": values, "b": values}
        with pytest.raises(RecipeError, match="nested more than 64 deep"):
            read_recipe(values)
