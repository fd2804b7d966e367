"""The dataset ``csv``: tables as people and programs write them, and what is wrong with their rows."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune import DataError, Samples
from finetune_plugins.csv import Table, build

if TYPE_CHECKING:
    from finetune import Split

PHOTOS = ("a.jpg", "b.jpg", "c.jpg", "deep/d, e.jpg", "ünï 中文.jpg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in PHOTOS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"photo")
    return tmp_path


def table(folder: Path, text: str | bytes, split: Split = "train", **options: Any) -> Samples | None:
    file = folder / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return build(Table(file=file, **options), split)


def pairs(samples: Samples | None, root: Path) -> list[tuple[str, str]]:
    assert samples is not None
    images = [image for image in samples.images if isinstance(image, Path)]
    found = zip(images, samples.labels, strict=True)
    return [(image.relative_to(root).as_posix(), samples.classes[label]) for image, label in found]


def findings(samples: Samples | None, root: Path) -> list[tuple[str, str, str]]:
    assert samples is not None
    return [(f.severity, Path(f.subject).name, f.text.replace(f"{root}/", "")) for f in samples.findings]


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na.jpg,rose\n"deep/d, e.jpg",daisy\nünï 中文.jpg,"big ""red"" rose"\n',
        '\ufeffpath,label\r\na.jpg,rose\r\n"deep/d, e.jpg",daisy\r\n\r\nünï 中文.jpg,"big ""red"" rose"\r\n,\r\n',
        'path;label\na.jpg;rose\ndeep/d, e.jpg;daisy\nünï 中文.jpg;"big ""red"" rose"',
        'nr\tpath\tlabel\n1\ta.jpg\trose\n2\tdeep/d, e.jpg\t daisy \n3\tünï 中文.jpg\t"big ""red"" rose"',
        'label , path\rrose,a.jpg\rdaisy,"deep/d, e.jpg"\r"big ""red"" rose",ünï 中文.jpg\r',
    ],
)
def test_tables_of_all_kinds(root: Path, text: str) -> None:
    samples = table(root, text)
    expected = [("a.jpg", "rose"), ("deep/d, e.jpg", "daisy"), ("ünï 中文.jpg", 'big "red" rose')]
    assert pairs(samples, root) == expected
    assert samples is not None
    assert samples.classes == ('big "red" rose', "daisy", "rose")
    assert samples.findings == ()
    assert table(root, text, "valid") is None


def test_own_columns_root_and_splits(root: Path) -> None:
    text = "file,species,fold,x\na.jpg,10,train,1\nb.jpg,9,TRAIN,1\nc.jpg,10,val,1\na.jpg,10,test,1\n"
    (root / "lists").mkdir()

    def read(split: Split) -> Samples | None:
        options: dict[str, Any] = {"path_column": "file", "label_column": "species", "split_column": "fold"}
        return table(root / "lists", text, split, root=root, **options)

    assert pairs(read("train"), root) == [("a.jpg", "10"), ("b.jpg", "9")]
    train = read("train")
    assert train is not None
    assert train.classes == ("9", "10")
    assert pairs(read("valid"), root) == [("c.jpg", "10")]
    assert pairs(read("test"), root) == [("a.jpg", "10")]


def test_absolute_paths(root: Path) -> None:
    assert pairs(table(root, f"path,label\n{root}/a.jpg,x\n./deep/../b.jpg,y"), root) == [
        ("a.jpg", "x"),
        ("b.jpg", "y"),
    ]


def test_rows_that_cannot_be_used_are_all_named(root: Path) -> None:
    text = "path,label\na.jpg,rose\nb.jpg,\nc.jpg,NaN\n,rose\nnone.jpg,rose\nc.jpg,rose,red\nb.jpg\ndeep\\d.jpg,rose\n"
    assert findings(table(root, text), root) == [
        ("error", "table.csv:3", "has no class in column 'label', but ''"),
        ("error", "table.csv:4", "has no class in column 'label', but 'NaN'"),
        ("error", "table.csv:5", "has no path in column 'path'"),
        ("error", "table.csv:7", "has 3 cells below 2 columns; put cells that hold a separator in quotes"),
        ("error", "table.csv:8", "has 1 cell below 2 columns; fill the row or remove it"),
        ("error", "table.csv:6", "no file 'none.jpg'; check the path and dataset.root"),
        ("error", "table.csv:9", "no file 'deep\\d.jpg'; write / between folders"),
    ]


def test_repeated_rows(root: Path) -> None:
    samples = table(root, "path,label\na.jpg,rose\nb.jpg,daisy\n./a.jpg,rose\nb.jpg,rose\n")
    assert pairs(samples, root) == [("a.jpg", "rose"), ("b.jpg", "daisy")]
    assert findings(samples, root) == [
        ("warning", "table.csv:4", "repeats line 2; the photo is used once"),
        ("error", "table.csv:5", "labels 'b.jpg' as 'rose', line 3 as 'daisy'; keep one"),
    ]


def test_numbers_that_stand_for_no_label(root: Path) -> None:
    samples = table(root, "path,label\na.jpg,0\nb.jpg,-1\nc.jpg,-1\n")
    text = "class '-1' is learnt like any other; is its class unknown?"
    assert findings(samples, root) == [("warning", "table.csv:3", text)]


def test_findings_belong_to_their_split(root: Path) -> None:
    text = "path,label,split\na.jpg,x,train\nnone.jpg,x,valid\nb.jpg,,test\nc.jpg,x,trian\nc.jpg,y,train\n"
    splits: list[Split] = ["train", "valid", "test"]
    train, valid, test = (table(root, text, split, split_column="split") for split in splits)
    assert findings(train, root) == [("error", "table.csv:5", "'trian' is not a split; did you mean 'train'?")]
    assert [f[1] for f in findings(valid, root)] == ["table.csv:3"]
    assert [f[1] for f in findings(test, root)] == ["table.csv:4"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("pth,label\na.jpg,x\n", {}, "has no column 'path'; did you mean 'pth'? (columns: pth, label); name it with"),
        ("1,2\na.jpg,x\n", {}, "has no column 'path'; known: 1, 2; name it with dataset.path_column"),
        ("", {}, "is empty; its first line names the columns, such as path,label"),
        (
            "path,label\n",
            {"split_column": "fold"},
            "has no column 'fold'; known: label, path; name it with dataset.",
        ),
        ("path,label,label\na.jpg,x,y\n", {}, "has 2 columns 'label'; rename all but one"),
        ("path,label\n\n,\n", {}, "has no rows for training; add some"),
        ("path,label\na.jpg,\xe9\n".encode("latin-1"), {}, "is not UTF-8 text, see line 2; save it as CSV in UTF-8"),
        ("path,label\na.jpg,x\n".encode("utf-16-le"), {}, "is UTF-16 text without a byte order mark; save it as CSV"),
        ("path,label\na.jpg,x\n".encode("utf-16")[:-1], {}, "is damaged UTF-16 text; save it as CSV in UTF-8"),
        (
            "a.jpg,rose\nb.jpg,daisy\n",
            {},
            "has no header: its first line, 'a.jpg,rose', looks like a row; start the file with path",
        ),
        (
            'path,label\na.jpg,"x\nb.jpg,y\n',
            {},
            "cannot be read from line 2 on: unexpected end of data; fix the",
        ),
        ('path,label\na.jpg,"x"y\n', {}, "cannot be read from line 2 on: ',' expected after '\"'; fix the quotes"),
        ("path,label\n" + "a" * 200_000, {}, "cannot be read from line 2 on: field larger than field limit"),
    ],
)
def test_tables_that_cannot_be_read(root: Path, text: str | bytes, options: dict[str, Any], message: str) -> None:
    csv.field_size_limit(131_072)  # Python's default, which a library may have raised for the whole process
    with pytest.raises(DataError) as caught:
        table(root, text, **options)
    assert str(caught.value).startswith(f"'{root}/table.csv' {message}")


def test_missing_files_and_folders(root: Path) -> None:
    table(root, "path,label\na.jpg,x\n")
    with pytest.raises(DataError, match=r"no file '.*/tabel.csv': '.*' has no 'tabel.csv'; did you mean 'table.csv'\?"):
        build(Table(file=root / "tabel.csv"), "train")
    with pytest.raises(DataError, match=r"is a folder, not a table; set dataset.use=folder to read folders of photos"):
        build(Table(file=root), "train")
    with pytest.raises(DataError, match=r"no folder '.*/dep': '.*' has no 'dep'; did you mean 'deep'\?"):
        table(root, "path,label\na.jpg,x\n", root=root / "dep")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.one_of(st.binary(max_size=60), st.text('pathlbe,;\t"\n\r0-\0\ufeff', max_size=40).map(str.encode)))
def test_any_bytes_give_samples_or_a_clear_error(root: Path, text: bytes) -> None:
    with suppress(DataError):
        assert table(root, b"path,label\n" + text) is not None
