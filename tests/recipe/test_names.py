"""Names of files with any character: data keeps them exactly, and only what is printed is escaped."""

from __future__ import annotations

import csv
import io
import json
import os
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import Finetuner
from finetune.cli import main, output, predict
from finetune.data.audit import Notes
from finetune.data.imagefile import BadImage
from finetune.model.inputs import Prediction
from finetune.recipe.places import clip_text
from finetune.text import escape, escape_line
from finetune_plugins.csv import Table, build
from tests.faults.data_makers import encoded, trained

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = (
    "Screenshot 2026-11-30 at 9.41.07\u202fAM.png",
    "no\u00a0break.png",
    "ideo\u3000graphic.png",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.png",
    "line\nend\r.png",
    '\ttab, comma; and "quotes".png',
    " spaces \u3000",
    "\u200fright to left\u202e.png",
    "\x1b[2Jescape\x07.png",
    "not\udcffutf8\udce9.png",
    "=formula.png",
    "e\u0301 and \u00e9.png",
)


def is_name(text: str) -> bool:
    """Return whether a file can have this name."""
    return text not in (".", "..") and "/" not in text and "\0" not in text and len(os.fsencode(text)) <= 200


NAME = (
    st.binary(min_size=1, max_size=40).map(os.fsdecode)
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
    | st.sampled_from(NAMES)
)


def predicted(names: list[str]) -> list[Prediction]:
    return [Prediction(path=name, label="a", probability=0.5, top=(("a", 0.5),)) for name in names]


@given(st.lists(NAME.filter(is_name), min_size=1, max_size=6, unique=True))
def test_every_name_comes_back_from_csv_and_json(names: list[str]) -> None:
    with TemporaryDirectory() as top:
        folder = Path(top)
        for name in names:
            (folder / name).write_bytes(b"photo")
        names = [name for name in names if name in os.listdir(folder)]  # a file system may change names itself
        (folder / "table of names").write_bytes(predict.format_table(predicted(names), 1))
        samples = build(Table(file=folder / "table of names"), "train")
        assert samples is not None
        assert not samples.findings
        assert list(samples.images) == [folder / name for name in names]
        assert all(os.path.lexists(str(path)) for path in samples.images)
    line = output.format_line({"predictions": [predict.convert_prediction(each) for each in predicted(names)]})
    assert line.isascii()
    assert [each["path"] for each in json.loads(line)["predictions"]] == names


@given(st.lists(st.lists(st.text(max_size=20), min_size=2, max_size=2), max_size=4))
def test_cells_come_back_as_they_are(rows: list[list[str]]) -> None:
    rows = [[cell.replace("\0", "") for cell in row] for row in rows]
    assert list(csv.reader(io.StringIO(output.format_csv(rows), newline=""), strict=True)) == rows


@given(st.text())
def test_what_is_printed_cannot_steer_a_terminal(text: str) -> None:
    shown = escape_line(text)
    assert not any(
        ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
        for c in shown
    )
    assert escape(escape(text)) == escape(text)
    shown.encode()


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("at 9.41\u202fAM", "at 9.41\u202fAM"),
        ("no\u00a0break ideo\u3000graphic", "no\u00a0break ideo\u3000graphic"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("hid\u200dden", r"hid\u200dden"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("\u200f\ufeff", r"\u200f\ufeff"),
        ("a\nb\r\x1b[2J", r"a\nb\r\x1b[2J"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_is_escaped(name: str, printed: str) -> None:
    assert escape_line(name) == printed


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Return a folder with photos under odd names, and one that is no image."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / "photos" / (name if name.endswith("png") else f"{name}.png")).write_bytes(
            encoded("PNG", seed=number)
        )
    return tmp_path


@pytest.fixture
def answered(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, bytes]]:
    def call(*words: str | Path) -> tuple[int, bytes]:
        code = main([*map(str, words)])
        return code, capfdbinary.readouterr().out

    return call


def test_predict_gives_the_names_of_the_files(odd: Path, answered: Any) -> None:
    files = {os.path.join("photos", name) for name in os.listdir(odd / "photos")}
    with chdir(odd):
        code, out = answered("predict", trained(), "photos", "--csv", "labels.csv", "--json")
        assert code == 0
        assert {each["path"] for each in json.loads(out.splitlines()[-1])["predictions"]} == files
        samples = build(Table(file=Path("labels.csv")), "train")
        assert samples is not None
        assert {str(path) for path in samples.images} == files
        code, out = answered("predict", trained(), "photos", "--csv", "-")
        assert out == Path("labels.csv").read_bytes()
        code, out = answered("predict", trained(), "photos")
        assert len(out.decode().splitlines()) == len(files)
        assert b"\x1b" not in out


def test_predictions_have_the_path_that_was_given(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)
    given: list[str | Path] = [f"./photos/{NAMES[0]}", Path("photos") / NAMES[9], f"photos//{NAMES[4]}"]
    found = Finetuner.load(trained(), progress=False).predict(given)
    assert [each.path for each in found] == given
    assert [type(each.path) for each in found] == [type(each) for each in given]
    assert "\\n" in str(found[2])
    assert "\n" not in str(found[2])


def test_findings_keep_names_and_messages_escape_them() -> None:
    notes = Notes()
    notes.add("image", "error", "train", NAMES[4], f"is the same as {NAMES[0]}")
    assert (notes.report()[0]["subject"], notes.report()[0]["text"]) == (NAMES[4], f"is the same as {NAMES[0]}")
    with pytest.raises(Exception, match=r"line\\nend\\r\.png: is the same as .*9\.41\.07\u202fAM\.png"):
        notes.raise_errors("dataset 'x'")
    error = BadImage(NAMES[4], "is empty")
    assert (error.name, str(error)) == (NAMES[4], r"'line\nend\r.png' is empty")


def test_a_report_on_data_keeps_names(odd: Path, answered: Any) -> None:
    recipe = "dataset: {use: csv, file: t.csv, on_bad_image: skip}\nbackbone: {use: resnext_nano, weights: none}\n"
    bad = [f"photos/{NAMES[0]}", f"photos/{NAMES[4]}"]
    with chdir(odd):
        for name in bad:
            Path(name).write_bytes(b"no image")
        files = sorted(os.path.join("photos", name) for name in os.listdir("photos"))
        rows = [["path", "label"], *([name, "ab"[number % 2]] for number, name in enumerate(files))]
        Path("t.csv").write_bytes(output.format_csv(rows).encode("utf-8", "surrogateescape"))
        Path("r.yaml").write_text(recipe + "image: {size: 16, resize: 16}\ntrain: {batch_size: 2}\n")
        code, out = answered("check", "r.yaml", "--json")
        assert code == 0
        subjects = {each["subject"] for each in json.loads(out.splitlines()[-1])["data"]["findings"]}
        assert {str(odd / name) for name in bad} <= subjects
        code, out = answered("pack", "r.yaml", "packed", "--json")
        assert code == 0
        from finetune.data.pack.packed import read_pack

        samples = read_pack(Path("packed"), "train")
        assert samples is not None
        assert {image.name for image in samples.images} == {os.path.basename(name) for name in files} - {  # type: ignore[union-attr]
            os.path.basename(name) for name in bad
        }


def test_an_odd_name_in_a_recipe_is_shown_as_it_is_but_for_what_steers_a_terminal() -> None:
    assert clip_text("caf\u00e9 \u202f\u3000x") == "caf\u00e9 \u202f\u3000x"
    assert clip_text("caf\u00e9\n\x1b[31m\u202e") == "caf\u00e9\\n\\x1b[31m\\u202e"
