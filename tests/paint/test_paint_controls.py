"""What a stroke predictor has to be better than: strokes that ignore the picture, random strokes, greedy search."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gtool.config.recipe import validate
from gtool.data.synthetic.dead_leaves import draw_leaves
from gtool.data.synthetic.scenes import draw_scenes
from gtool.io.run_folder import shipped_weights
from gtool.models import registry
from gtool.models.paint_transformer.network import Proposals
from gtool.models.paint_transformer.proposals import load_predictor, predictor_of
from gtool.runtime.device import make_compute
from gtool.runtime.torch_random import make_generator
from gtool.strokes.brush import load_brush
from gtool.strokes.painting import paint
from gtool.strokes.settings import PaintSettings
from gtool.train import strokes as engine
from tests.helpers.tiny import tiny_strokes

SETTINGS = [
    "train.kimg=100",
    "strokes.supervised_until=0.0",
    "strokes.supervised_share=0.2",
    "strokes.count=8",
]
SETTINGS += ["strokes.num_pictures=64", "model.width=64", "model.depth=2", "model.grid=4"]


class Constant(nn.Module):
    """The same 64 strokes for every patch: all that can be learned without looking."""

    def __init__(self) -> None:
        super().__init__()
        uniform = torch.rand(64, 5, generator=torch.Generator().manual_seed(0))
        self.places = nn.Parameter(torch.logit(uniform[:, :2].clamp(0.05, 0.95)))
        self.sides = nn.Parameter(torch.logit(0.1 + 0.6 * uniform[:, 2:4]))
        self.theta = nn.Parameter(uniform[:, 4:])
        self.logits = nn.Parameter(torch.zeros(64))

    def forward(self, target, _canvas):
        shape_params = torch.cat([self.places.sigmoid(), self.sides.sigmoid(), self.theta], dim=1)
        return Proposals(shape_params.expand(len(target), -1, -1), self.logits.expand(len(target), -1))


def make_state(*settings):
    recipe = tiny_strokes(*SETTINGS, *settings)
    config = validate(registry.config_class("paint-transformer"), recipe.model, "test")
    state = engine.init_state(recipe, config, None, make_compute("cpu", "fp32"))
    state.progress = 0.01
    return state


def scores_on_the_way(state, rounds):
    """Train and return the scores after every 40 steps."""
    scores = []
    for _ in range(rounds):
        for _ in range(40):
            engine.step(state)
        scores.append(engine.measure(state, 128))
    return scores


@pytest.fixture(scope="module")
def trained():
    """A small predictor after 100 steps: its state and scores."""
    state = make_state("train.batch_size=40", "train.ema_decay=0.95")
    for _ in range(100):
        engine.step(state)
    return state, engine.measure(state, 128)


def test_a_predictor_beats_the_best_strokes_that_ignore_the_picture(trained):
    """The reference's losses leave a small network at what constant strokes reach (sheet 6.3 and 9.1)."""
    state = make_state("train.batch_size=20", "train.ema_decay=0.9", "optim.learning_rate=0.03")
    state.predictor = Constant()
    state.ema = copy.deepcopy(state.predictor)
    state.optimizer = torch.optim.Adam(state.predictor.parameters())
    first = engine.measure(state, 128)
    rounds = scores_on_the_way(state, 3)
    best = {name: min(scores[name] for scores in rounds) for name in first}
    # The control is fitted, not just any strokes.
    assert best["left_decision"] < 0.95 * first["left_decision"]
    _, ours = trained
    assert ours["left_decision"] < 0.9 * best["left_decision"]
    assert ours["left_gain"] < best["left_gain"]
    assert ours["left_gain_blurred"] < best["left_gain_blurred"]


BRUSH = load_brush("flat")


def errors(predict, levels=3, pictures=None, **plan):
    """Mean errors of paintings of scenes, by a predictor and by the methods without one, at one budget of strokes."""
    scenes = torch.from_numpy(np.asarray(draw_scenes(np.arange(2), 128, seed=77).images))
    scenes = (scenes if pictures is None else pictures).float() / 255
    found = {}
    for method in ("predictor", "greedy", "random"):
        total = 0.0
        for photo in scenes:
            painting = paint(
                photo, replace(PaintSettings(levels=levels, method=method), **plan), BRUSH, predict
            )
            pixels = painting.render(128, 128).permute(2, 0, 1).float() / 255
            total += float((pixels - photo).abs().mean())
        found[method] = total / len(scenes)
    return found


def test_random_strokes_are_worse_than_a_predictor_and_than_greedy_search(trained):
    state, _ = trained
    found = errors(predictor_of(state.ema, state.compute), levels=2)
    assert found["predictor"] < 0.9 * found["random"]
    assert found["greedy"] < 0.8 * found["random"]


@pytest.mark.parametrize(("select", "greedy", "random"), [("gain", 0.82, 0.62), ("decision", 0.95, 0.62)])
def test_weights_of_the_package_beat_greedy_search(select, greedy, random):
    path = shipped_weights("paint-transformer")
    leaves = draw_leaves(3, 128, make_generator(77, "leaves"))  # textured, as photographs are
    found = errors(load_predictor(Path(path), make_compute("cpu", "fp32")), 2, leaves, select=select)
    assert found["predictor"] < greedy * found["greedy"]
    assert found["predictor"] < random * found["random"]
