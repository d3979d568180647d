"""`--svg --plotter`: centre lines for a pen, a layer for every paint, short ways between."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.errors import DataError
from gtool.paint.plotter import centre_lines, save_plot, short_way, travel
from tests.helpers.painted import draw_photo, paint, refusal
from tests.strokes.examples import a_painting

SVG = "{http://www.w3.org/2000/svg}"
LABEL = "{http://www.inkscape.org/namespaces/inkscape}label"


def test_a_layer_for_every_paint_and_a_line_for_every_stroke(tmp_path):
    paints = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    save_plot(tmp_path / "a.svg", a_painting(60, colors=paints[torch.arange(60) // 30]), 300)
    layers = ET.parse(tmp_path / "a.svg").getroot().findall(f"{SVG}g")
    assert [layer.get(LABEL) for layer in layers] == ["1 #ff0000", "2 #0000ff"]
    assert [len(layer) for layer in layers] == [30, 30]


def test_lines_run_along_the_bristles_and_stay_on_the_paper():
    painting = a_painting(300)
    lines = centre_lines(painting, 300)
    assert lines.min() >= 0
    assert (lines.max((0, 1)) <= (300, 200)).all()
    one = a_painting(1, shape_params=torch.tensor([[0.5, 0.3, 0.02, 0.4, 0.5]]))  # lies along x
    ((left, right),) = np.sort(centre_lines(one, 300), axis=1)
    assert abs(left[1] - right[1]) < 0.01
    assert 90 < right[0] - left[0] < 120


@pytest.mark.parametrize("count", [0, 1, 2, 700])
def test_the_pen_travels_little_and_draws_every_line_once(count):
    lines = np.random.default_rng(0).uniform(0, 1000, (count, 2, 2))
    ordered = short_way(lines)
    ends = [sorted(map(sorted, each.round(3).tolist())) for each in (lines, ordered)]
    assert ends[0] == ends[1]
    assert travel(ordered) <= travel(lines) / (3 if count > 2 else 1)


def test_more_paints_than_pens_are_refused(tmp_path):
    with pytest.raises(DataError, match="300 paints; --plotter needs at most 256"):
        save_plot(tmp_path / "a.svg", a_painting(300), 100)
    assert not list(tmp_path.iterdir())


def test_a_photo_is_plotted_with_few_paints(capsys):
    draw_photo("photo.png")
    assert paint("photo.png", "--colors", 3, "--svg", "plot.svg", "--plotter") == 0
    assert 2 <= Path("plot.svg").read_text().count("inkscape:groupmode") <= 3
    for flags, said in (
        (["--svg", "p.svg"], "--plotter needs paints"),
        (["--colors", 3], "--plotter is for --svg"),
    ):
        capsys.readouterr()
        assert paint("photo.png", "--force", "--plotter", *flags) == 2
        assert said in refusal(capsys)
