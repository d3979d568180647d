"""`gtool train transgan --weights`: other images, from a trained generator on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gtool.cli import run
from gtool.io.run_folder import find_weights
from gtool.io.weights import read_safetensors
from tests.helpers import runs
from tests.helpers.tiny import tiny_recipe

QUICK = ("train.metrics=[]", "train.snapshot_kimg=0.016", "train.tick_kimg=0.016")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run with weights and, beside them, the state with its discriminator."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert runs.train("transgan", runs.write_recipe(tiny_recipe("train.kimg=0.032", *QUICK)), "run") == 0
    return folder / "run"


def go_on(out, weights, *settings):
    recipe = runs.write_recipe(tiny_recipe("train.kimg=0.064", "train.seed=5", *QUICK, *settings))
    return runs.train("transgan", recipe, out, "--weights", str(weights))


def states(out):
    """The networks of every state of a run, oldest first."""
    found = sorted(path for path in Path(out).glob("state-*"))
    return [{file.stem: read_safetensors(file) for file in path.glob("*.safetensors")} for path in found]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_without_a_discriminator_one_is_learned_first_while_the_generator_waits(start, tmp_path):
    weights = tmp_path / "alone.safetensors"
    weights.write_bytes(find_weights(str(start)).read_bytes())
    assert go_on("out", weights, "train.discriminator_kimg=0.032", "train.keep_snapshots=9") == 0
    given, (first, second, third, _) = read_safetensors(weights), states("out")
    for state in (first, second):
        assert same(state["generator"], given)
        assert same(state["ema"], given)
    assert not same(first["discriminator"], second["discriminator"])
    assert not same(third["generator"], given)
    records = [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()]
    assert ["generator_loss" in one for one in records if one["nimg"]] == [False, False, True, True]
    # The wait is part of the state.
    assert go_on("half", weights, "train.discriminator_kimg=0.032", "train.kimg=0.016") == 0
    assert run(["train", "transgan", "--resume", "half", "--kimg", "0.064", "--device", "cpu"]) == 0
    runs.assert_same_state("out", "half")


def test_the_discriminator_beside_a_run_s_weights_goes_on_as_well(start):
    assert go_on("out", start, "optim.learning_rate=1e-30") == 0
    before, after = states(start)[-1], states("out")[0]
    for name in ("discriminator", "ema"):
        for key, value in before[name].items():
            torch.testing.assert_close(after[name][key], value, rtol=0, atol=1e-6)


def test_a_discriminator_of_another_kind_beside_the_weights_is_not_taken(start):
    assert go_on("out", start, "loss.projected=1", "train.discriminator_kimg=0.032") == 0
    assert same(states("out")[0]["ema"], states(start)[-1]["ema"])
