"""Augmentation policies as recipes write them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gtool.train.augment.policies import parse_policy

RELEASED = [
    "translation,cutout,color",
    "translation,stl_erase_ratio,color",
    "translation,erase_ratio,color",
    "filter,translation,erase_ratio,color,hue",
]


@pytest.mark.parametrize("text", RELEASED)
def test_released_policies_are_understood(text):
    assert parse_policy(text) == tuple(text.split(","))


def test_policies_allow_spaces_and_numbers_and_nothing():
    assert parse_policy(" translation:0.125 , cutout:1") == ("translation:0.125", "cutout:1")
    assert parse_policy("") == parse_policy(" none ") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour", "unknown augmentation `colour`; did you mean `color`"),
        ("color,,hue", "known: ada, ada-blit"),
        ("color;hue", "unknown augmentation"),
        ("cutout:often", "`often` is no number"),
        ("translation:2", r"\[0, 1\].*largest shift"),
        ("hue:-0.1", r"\[0, 1\]"),
        ("hue:nan", r"\[0, 1\]"),
    ],
)
def test_wrong_policies_are_refused_with_a_reason(text, message):
    with pytest.raises(ValueError, match=message):
        parse_policy(text)


def test_policies_are_checked_without_torch():
    code = (
        "import sys; from gtool.train.augment import policies; policies.parse_policy('hue'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
