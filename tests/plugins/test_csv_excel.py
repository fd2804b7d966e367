"""The dataset ``csv`` with what Excel and people write: first lines, encodings, decimal commas, paths nearly right."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from finetune import DataError, Samples
from finetune_plugins.csv import Table, build

NFD = unicodedata.normalize("NFD", "café.jpg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of files of many names."""
    (tmp_path / "Img").mkdir()
    for name in ("a.jpg", "b.jpeg", "c.PNG", "sp ace.jpg", NFD, "twin.jpg", "twin.png"):
        (tmp_path / "Img" / name).write_bytes(b"photo")
    return tmp_path


def read(root: Path, text: str | bytes, **options: Any) -> Samples:
    file = root / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    samples = build(Table(file=file, **options), "train")
    assert samples is not None
    return samples


def pairs(samples: Samples, root: Path) -> list[tuple[str, str]]:
    found = zip(samples.images, samples.labels, strict=True)
    return [(str(Path(str(path)).relative_to(root)), samples.classes[label]) for path, label in found]


ROWS = "Img/a.jpg;rose;0,5\r\nImg/b.jpeg;1,0;1,25\r\n"
EXPECTED = [("Img/a.jpg", "rose"), ("Img/b.jpeg", "1,0")]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\npath;label;size\r\n" + ROWS,
        "\ufeffsep=;\r\npath;label;size\r\n" + ROWS,
        '"sep=;"\npath;label;size\n' + ROWS.replace("\r", ""),
        "SEP=;\rpath;label;size\r" + ROWS.replace("\r\n", "\r"),
        "sep=|\npath|label|size\n" + ROWS.replace(";", "|"),
        "sep=\t\npath\tlabel\tsize\n" + ROWS.replace(";", "\t"),
        "sep=\\t\npath\tlabel\tsize\n" + ROWS.replace(";", "\t"),
        "path;label;size (width, height, depth, in mm)\r\n" + ROWS,
        "Path; LABEL ;size\r\n" + ROWS,
        'path,label,size\nImg/a.jpg,rose,"0,5"\nImg/b.jpeg,"1,0","1,25"\n',
    ],
    ids=lambda text: repr(text[:14]),
)
def test_tables_of_excel(root: Path, text: str) -> None:
    samples = read(root, text)
    assert pairs(samples, root) == EXPECTED
    assert samples.findings == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_unicode_text(root: Path, encoding: str) -> None:
    text = "path\tlabel\tsize\r\n" + ROWS.replace(";", "\t").replace("rose", "rosé")
    assert pairs(read(root, text.encode(encoding)), root) == [("Img/a.jpg", "rosé"), ("Img/b.jpeg", "1,0")]
    big = b"\xfe\xff" + text.encode("utf-16-be")
    assert pairs(read(root, big), root)[0] == ("Img/a.jpg", "rosé")


def test_lines_are_counted_from_the_first_of_the_file(root: Path) -> None:
    samples = read(root, "sep=;\npath;label\nImg/a.jpg;rose\nnone.jpg;rose\n")
    assert [Path(finding.subject).name for finding in samples.findings] == ["table.csv:4"]


def test_an_exact_column_comes_before_one_of_another_case(root: Path) -> None:
    assert pairs(read(root, "Path,path,label\nx,Img/a.jpg,rose\n"), root) == [("Img/a.jpg", "rose")]
    with pytest.raises(DataError, match="has no column 'path'"):
        read(root, "Path,PATH,label\nx,Img/a.jpg,rose\n")


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("Img/a.JPG", "did you mean 'Img/a.jpg', which differs in upper and lower case?"),
        ("Img/c.png", "did you mean 'Img/c.PNG', which differs in upper and lower case?"),
        ("img/a.jpg", "did you mean 'Img/a.jpg', which differs in upper and lower case?"),
        ("Img/b.jpg", "did you mean 'Img/b.jpeg', which differs in its ending?"),
        ("Img/b", "did you mean 'Img/b.jpeg', which differs in its ending?"),
        ("IMG/B.JPG", "did you mean 'Img/b.jpeg', which differs in its ending?"),
        ("Img\\a.jpg", "did you mean 'Img/a.jpg', which has / between folders?"),
        ("Img\\A.jpg", "did you mean 'Img/a.jpg', which has / between folders and differs in upper and lower case?"),
        ("Img/sp%20ace.jpg", "did you mean 'Img/sp ace.jpg', which is not written as an address?"),
        ("file://Img/a.jpg", "did you mean 'Img/a.jpg', which is not written as an address?"),
        ("/Img/a.jpg", "did you mean 'Img/a.jpg', which does not start with /?"),
        ("Img/sp\u00a0ace.jpg", "did you mean 'Img/sp ace.jpg', which differs in spaces, invisible characters or"),
        ("Img/\u200ba.jpg", "did you mean 'Img/a.jpg', which differs in spaces, invisible characters or their width?"),
        ("Img/none.jpg", "check the path and dataset.root"),
        ("none\\none.jpg", "write / between folders"),
    ],
)
def test_a_path_that_is_nearly_right_names_the_file(root: Path, given: str, remedy: str) -> None:
    (finding,) = read(root, f"path,label\n{given},rose\n").findings
    assert finding.severity == "error"
    assert f"; {remedy}" in finding.text


def test_another_unicode_form_of_the_same_name_is_used_and_noted(root: Path) -> None:
    samples = read(root, "path,label\nImg/caf\u00e9.jpg,rose\nImg/a.jpg,daisy\n")
    assert pairs(samples, root) == [(f"Img/{NFD}", "rose"), ("Img/a.jpg", "daisy")]
    (finding,) = samples.findings
    assert (finding.severity, Path(finding.subject).name) == ("note", "table.csv:2")
    assert "has a different Unicode form (NFC, NFD) than the file, which is used" in finding.text


def test_where_both_forms_are_there_each_is_its_own(root: Path) -> None:
    (root / "Img" / "caf\u00e9.jpg").write_bytes(b"other")
    samples = read(root, f"path,label\nImg/caf\u00e9.jpg,rose\nImg/{NFD},daisy\n")
    assert pairs(samples, root) == [("Img/caf\u00e9.jpg", "rose"), (f"Img/{NFD}", "daisy")]
    assert samples.findings == ()
