"""`gtool train`: the weights and the log of each family, and runs that go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from .commands import gtool, log, save_pictures, state, train, weights

WITHIN = {"transgan": 0.005, "gansformer": 0.01, "vqgan": 0.02, "prior": 0.02, "paint-transformer": 0.01}


def test_a_run_ends_with_the_same_weights_and_log(family, run_of, frozen):
    run = run_of(family)
    frozen.weights(f"train/{family}/weights", weights(run), within=WITHIN[family])
    frozen.numbers(f"train/{family}/log", log(run), share=0.2, within=0.05)


def test_a_run_on_a_folder_of_pictures_ends_with_the_same_weights_and_log(tmp_path, frozen):
    pictures = save_pictures(tmp_path / "pictures", 20, 20)
    assert train("transgan", tmp_path / "run", "--dataset", pictures, "--kimg", 0.032, "--seed", 3) == 0
    frozen.weights("train/folder/weights", weights(tmp_path / "run"), within=WITHIN["transgan"])
    frozen.numbers("train/folder/log", log(tmp_path / "run"), share=0.2, within=0.05)


def test_a_run_that_goes_on_from_its_middle_ends_as_one_that_never_stopped(family, run_of, tmp_path):
    whole = run_of(family)
    stopped = Path(shutil.copytree(whole, tmp_path / "stopped"))
    shutil.rmtree(sorted(stopped.glob("state-*"))[-1])
    sorted(stopped.glob("weights-*"))[-1].unlink()
    assert len(list(stopped.glob("state-*"))) == 1
    assert resume(family, stopped) == 0
    assert_same_end(stopped, whole)
    assert log(stopped) == log(whole)


def test_a_run_is_made_longer(run_of, tmp_path):
    whole, out = run_of("transgan"), tmp_path / "out"
    assert train("transgan", out, "--kimg", 0.032) == 0
    assert resume("transgan", out, "--kimg", 0.064) == 0
    assert_same_end(out, whole)


def resume(family, out, *more):
    return gtool("--quiet", "train", family, "--resume", out, "--device", "cpu", *more)


def assert_same_end(first, second):
    for read in (weights, state):
        one, other = read(first), read(second)
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
