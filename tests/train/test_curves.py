"""Curves of a run: every line is drawn, in a panel of its own title."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gtool.io.curves import COLOURS, save_curves
from gtool.train.reports import panels_of


def drawn(path, colour: str) -> np.ndarray:
    """Where a picture has nearly this colour: bool (H, W)."""
    wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
    with Image.open(path) as opened:
        return np.abs(np.asarray(opened.convert("RGB")).astype(int) - wanted).max(axis=2) < 12


def test_panels_are_stacked_and_every_line_is_drawn(tmp_path):
    xs = list(range(20))
    panels = {"losses": {"a": (xs, xs), "b": (xs, xs[::-1])}, "rfd": {"rfd": (xs, [2.0] * 20)}}
    save_curves(tmp_path / "c.png", panels, log=("rfd",))
    first, second = (drawn(tmp_path / "c.png", colour) for colour in COLOURS[:2])
    middle = len(first) // 2
    assert [int(half.sum()) > 300 for half in (first[:middle], first[middle:])] == [True, True]
    assert second[:middle].sum() > 300
    assert not second[middle:].any()


def test_a_line_is_interrupted_where_values_are_not_finite(tmp_path):
    xs = [float(x) for x in range(101)]
    ys = [float("nan") if 40 < x < 60 else 1.0 for x in xs]
    save_curves(tmp_path / "c.png", {"loss": {"a": (xs, ys)}})
    columns = np.flatnonzero(drawn(tmp_path / "c.png", COLOURS[0])[60:].any(axis=0))  # below the legend
    gaps = np.diff(columns)
    assert (gaps > 100).sum() == 1
    assert gaps.max() < 0.25 * (columns[-1] - columns[0])


def test_a_single_point_can_be_drawn(tmp_path):
    save_curves(tmp_path / "c.png", {"one": {"a": ([3.0], [0.5])}})
    assert drawn(tmp_path / "c.png", COLOURS[0])[60:].sum() > 10


@pytest.mark.parametrize(
    ("logged", "titles"),
    [
        (
            "rfd rfd_floor swd_32 discriminator_loss real_logit penalty generator_grad_norm",
            "rfd swd losses logits",
        ),
        ("l1 gradients quantizer_loss grad_norm psnr codes_used", "PSNR codes reconstruction norms"),
        ("train_nll grad_norm nll unigram", "likelihood norms"),
        ("left left_gain reward known_sides grad_norm", "left losses norms"),
    ],
)
def test_what_a_family_logs_is_shown(logged, titles):
    panels = panels_of([{"kimg": 0.1, "nimg": 100, "seconds": 1.0} | dict.fromkeys(logged.split(), 1.0)])
    assert sorted(name for lines in panels.values() for name in lines) == sorted(logged.split())
    assert all(any(title in whole for whole in panels) for title in titles.split())


def test_a_short_run_draws_points(tmp_path):
    save_curves(tmp_path / "line.png", {"one": {"a": (range(99), [1.0] * 99)}})
    save_curves(tmp_path / "points.png", {"one": {"a": (range(3), [1.0] * 3)}})
    heights = [
        drawn(tmp_path / name, COLOURS[0])[60:].any(axis=1).sum() for name in ("line.png", "points.png")
    ]
    assert heights[1] > heights[0]
