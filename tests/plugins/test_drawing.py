"""Pictures for TensorBoard: the confusion matrix, sheets of images, and names."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_plugins import drawing


def test_a_matrix_colours_right_blue_and_wrong_red() -> None:
    colours = drawing.colour_cells(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 5]]))
    assert tuple(colours[2, 2]) == drawing.RIGHT
    red, _, blue = (int(v) for v in colours[0, 1])
    assert red > blue
    assert tuple(colours[0, 2]) == (255, 255, 255)
    assert {tuple(colour) for colour in colours[1]} == {(242, 242, 242)}


@pytest.mark.parametrize("count", [1, 2, 12, 13, 30, 31, 102, 1000, 1500])
def test_a_matrix_of_any_size_is_a_picture(count: int) -> None:
    confusion = np.eye(count, dtype=np.int64) * 10
    confusion[0, -1] += 123456
    picture = drawing.draw_matrix(
        confusion, [f"class {i}" for i in range(count)], "epoch 1: 3 of 4 images right (75.0%)"
    )
    assert min(picture.size) > 100
    assert max(picture.size) < 1600


def test_the_most_frequent_mistakes_come_first() -> None:
    assert drawing.find_worst(np.array([[9, 1, 0], [4, 9, 0], [0, 0, 9]])) == [(1, 0, 4), (0, 1, 1)]


def test_a_sheet_takes_pictures_of_any_size() -> None:
    shapes = [(1, 1), (1, 500), (500, 1), (224, 224), (30, 40)]
    picture = drawing.draw_sheet([drawing.Picture(pixels=np.zeros((*shape, 3), np.uint8)) for shape in shapes])
    assert picture.size == (3 * 200 + 8, 2 * 200 + 8)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("rose", "rose"), ("a\n b", "a b"), ("\U0010fffe", "class 7"), ("caf\udce9", "caf?"), ("x" * 300, "x" * 200)],
)
def test_names_are_shown_as_they_can_be_drawn(name: str, shown: str) -> None:
    assert drawing.make_drawable(name, "class 7") == shown


def test_names_without_a_font_lose_their_accents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "FONTS", ())
    assert drawing.make_drawable("rosé", "class 7") == "rose"
    assert drawing.make_drawable("玫瑰", "class 7") == "class 7"
    assert drawing.make_drawable("ß玫", "class 7") == "class 7"


def test_long_text_is_cut() -> None:
    cut = drawing.clip_text("giant white arum lily", 13, 60)
    assert cut.endswith("…")
    assert drawing.choose_font(cut, 13).getlength(cut) <= 60
