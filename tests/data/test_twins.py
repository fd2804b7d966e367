"""Class names that differ in what hardly anyone sees: which two, in what, and how many images each has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.data import audit
from finetune.data.audit import Names, Notes, describe_difference, fold_name
from finetune.data.labelled import Part

TWINS = [
    ("rose", "ro\u200bse", "differs in invisible characters"),
    ("rose", "\ufeffrose", "differs in invisible characters"),
    ("\u2764", "\u2764\ufe0f", "differs in invisible characters"),
    ("caf\u00e9", "cafe\u0301", "is written with other Unicode characters (NFC and NFD)"),
    ("Rose", "rose", "differs in upper and lower case"),
    ("Straße", "STRASSE", "differs in upper and lower case"),
    (" rose", "rose", "differs in spaces at the start or end"),
    ("dog  rose", "dog rose", "differs in the spaces between words"),
    ("dog\u00a0rose", "dog rose", "differs in the spaces between words"),
    ("\uff11", "1", "is written with characters of another width or form"),
    ("\uff32ose", "Rose", "is written with characters of another width or form"),
    ("1", "1.0", "is the same number written in another way"),
    ("1", "01", "is the same number written in another way"),
    ("1,50", "1.5", "is the same number written in another way"),
    ("0", "00", "is the same number written in another way"),
    ("+3", "3", "is the same number written in another way"),
    ("r\u043ese", "rose", "has letters or signs of another script that look the same"),
    ("\u0420OSE", "POSE", "has letters or signs of another script that look the same"),
    ("St. John\u2019s wort", "St. John's wort", "has letters or signs of another script that look the same"),
    ("dog\u2013rose", "dog-rose", "has letters or signs of another script that look the same"),
]


@pytest.mark.parametrize(("first", "other", "how"), TWINS)
def test_twins_are_told_with_what_sets_them_apart(first: str, other: str, how: str) -> None:
    assert Names([first, "tulip", other]).find_duplicates() == [(first, other)]
    assert describe_difference(other, first) == f"which {how}"


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("1", "10"),
        ("1", "-1"),
        ("1", "1.5"),
        ("0.1", "0.01"),
        ("v1", "v01"),
        ("rose", "rosé"),
        ("a-b", "a b"),
        ("1.2.3", "1.2.30"),
    ],
)
def test_names_that_differ_are_no_twins(first: str, other: str) -> None:
    assert fold_name(first) != fold_name(other)


def test_both_counts_are_reported() -> None:
    notes = Notes()
    labels = np.array([0] * 3 + [1] * 1 + [2] * 4)
    part = Part(name="train", images=[Path("x")] * 8, labels=labels)
    audit.audit_training(part, ("rose", "ro\u200bse", "tulip"), notes)
    (note,) = notes.all
    assert (note.kind, note.finding.severity, note.finding.subject) == ("class", "warning", "'ro\u200bse'")
    assert note.finding.text == "looks like 'rose', which differs in invisible characters (1 image and 3)"
