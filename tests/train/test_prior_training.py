"""Training of priors: what is learned of codes and conditions, which tokenizer is taken, runs that stop and go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.cli import run
from gtool.config.recipe import read_table, to_toml
from gtool.data.loader import Batches, CodeBatches, ids_of_depth, read_ids
from gtool.data.pixel_cache import ImageArrays
from gtool.io.run_folder import read_meta
from gtool.io.weights import load_weights, save_weights
from gtool.models import registry
from gtool.runtime.device import make_compute
from gtool.train import prior as engine
from tests.helpers import runs
from tests.helpers.runs import flat, write_recipe
from tests.helpers.tiny import save_tokenizer, tiny_prior, tiny_tokenizer

TOKENIZER = "runs/vqgan-scenes-000/weights-000001.safetensors"


def make_state(*settings, codes=None, conditions=None, **prior):
    """A state over 32 images whose codes are, if nothing else is said, the ids of their maps' cells."""
    recipe = tiny_prior("train.kimg=1.0", *settings)
    values = {**recipe.model, "resolution": 16, "tokenizer": tiny_tokenizer().model}
    values["prior"] = {**values["prior"], "condition": "segmentation", "condition_size": 9, **prior}
    config = registry.config_class("prior").model_validate(values)
    (pipeline,) = registry.network_module("prior").build(config)
    state = engine.init_state(recipe, config, pipeline.tokenizer.state_dict(), make_compute("cpu", "fp32"))
    images = ImageArrays(np.zeros((32, 3, 16, 16), np.uint8), None, "test")
    if conditions is None:
        conditions = torch.randint(0, 9, (32, 64), generator=torch.Generator().manual_seed(0))
    codes = (conditions * 3).view(32, 8, 8).numpy() if codes is None else codes
    state.batches = CodeBatches(Batches(images, seed=0, flip=False), codes, conditions)
    held_out = engine.HeldOut(
        torch.from_numpy(codes[:8]).long(), conditions[:8], torch.zeros(8, 3, 16, 16), None
    )
    return state, held_out


def test_a_prior_learns_what_conditions_say_of_codes():
    of_images = torch.arange(32)[:, None] % 8
    state, held_out = make_state("optim.learning_rate=1e-2", conditions=of_images.expand(-1, 64).clone())
    before = engine.measure(state, held_out)
    for _ in range(60):
        engine.step(state)
    after = engine.measure(state, held_out)
    assert before["nll"] > 3
    assert after["nll"] < 0.5 * after["unigram"]
    assert after["nll_shuffled"] > after["nll"] + 0.3
    assert after["unigram"] == pytest.approx(before["unigram"])
    assert 2 < after["unigram"] < np.log(9)


def test_the_measured_nll_is_the_mean_over_codes_whatever_the_chunks(monkeypatch):
    state, held_out = make_state()
    whole = engine.measure(state, held_out)
    monkeypatch.setattr(engine, "CHUNK", 3)
    assert engine.measure(state, held_out)["nll"] == pytest.approx(whole["nll"], rel=1e-5)


def test_the_tokenizer_stays_as_it_is():
    state, _ = make_state()
    before = flat(state.ema.tokenizer)
    for _ in range(3):
        engine.step(state)
    assert torch.equal(before, flat(state.ema.tokenizer))
    assert not any(name.startswith("tokenizer") for name, _ in state.networks["prior"].named_parameters())


def test_replaced_codes_are_read_but_not_wanted():
    """pkeep of the released code: each code that is read is another one with probability 1 - keep."""
    state, _ = make_state("prior.token_keep_prob=0.75")
    codes = torch.full((4, 8, 8), 31)
    replaced = engine._replace_codes(state, codes, first=0)
    share = (replaced == codes).float().mean()
    assert 0.65 < share < 0.87  # 0.75 + 0.25 / 32 of 256
    assert torch.equal(engine._replace_codes(state, codes, first=0), replaced)
    assert not torch.equal(engine._replace_codes(state, codes, first=4), replaced)
    # The second half of a batch is the same, whoever has it.
    assert torch.equal(engine._replace_codes(state, codes[:2], first=2), replaced[2:])
    assert engine._replace_codes(make_state()[0], codes, first=0) is codes


def test_some_conditions_are_not_told():
    state, _ = make_state("prior.condition_dropout=0.25")
    conditions = torch.zeros(200, 64, dtype=torch.int64)
    told = engine._drop_conditions(state, conditions, first=0)
    silent = (told == 8).all(dim=1)
    assert 0.15 < silent.float().mean() < 0.35
    assert not told[~silent].any()
    assert torch.equal(engine._drop_conditions(state, conditions[:100], first=100), told[100:])
    assert engine._drop_conditions(make_state()[0], conditions, first=0) is conditions


def test_orders_are_random_at_first_and_some_stay_so():
    state, held_out = make_state("prior.random_orders=0.25", orders="any")
    raster = torch.arange(64)
    for progress, least, most in ((0.0, 1.0, 1.0), (0.5, 0.5, 0.75), (1.0, 0.15, 0.35)):
        state.progress = progress
        orders = engine._draw_orders(state, 200, first=0)
        assert (orders.sort(dim=1).values == raster).all()
        assert least <= (orders != raster).any(dim=1).float().mean() <= most
        assert torch.equal(engine._draw_orders(state, 100, first=100), orders[100:])
    assert engine._draw_orders(make_state()[0], 4, first=0) is None
    state.progress = 0.5
    engine.step(state)
    assert engine.measure(state, held_out).keys() == {"nll", "nll_random", "nll_shuffled", "unigram"}


def test_micro_batches_give_the_same_step():
    whole, parts = make_state()[0], make_state("train.micro_batch=2")[0]
    for state in (whole, parts):
        for _ in range(2):
            engine.step(state)
    torch.testing.assert_close(flat(parts.prior), flat(whole.prior), rtol=1e-4, atol=1e-5)


def test_depth_becomes_levels_of_cells():
    depth = torch.tensor([[-1.0, 1.0], [1.0, 1.0]]).view(1, 1, 2, 2)
    assert ids_of_depth(depth, (2, 2)).tolist() == [[[0, 63], [63, 63]]]
    assert ids_of_depth(depth, (1, 1)).tolist() == [[[47]]]  # 0.75 of 63 steps


def test_labels_of_classes_are_ids_and_the_unknown_one_comes_last():
    images = ImageArrays(
        np.zeros((3, 3, 8, 8), np.uint8), np.array([2, -1, 0]), "test", condition="class", num_labels=3
    )
    assert read_ids(images, np.arange(3), (2, 2)).tolist() == [[2], [3], [0]]


# Runs.


@pytest.fixture
def tokenizer():
    return save_tokenizer(Path(TOKENIZER))


@pytest.mark.usefixtures("tokenizer")
def test_a_run_learns_the_newest_tokenizer_and_its_weights_hold_both(capsys):
    recipe = write_recipe(tiny_prior("train.kimg=0.096"))
    assert runs.train("prior", recipe, "out") == 0
    assert "each with its segmentation" in capsys.readouterr().err
    meta = read_meta(sorted(Path("out").glob("weights-*"))[-1])
    assert meta["config"]["tokenizer"]["quantizer"]["size"] == 32
    assert (
        meta["config"]["prior"] | {"codebook_size": 32, "grid": [8, 8], "condition_size": 9}
        == meta["config"]["prior"]
    )
    log = [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()]
    assert {"nll", "nll_shuffled", "unigram"} <= log[-1].keys()
    assert len(list(Path("out/samples").glob("*.png"))) >= 3
    # The second training finds the codes.
    assert len(list(Path("cache/tokens").glob("*.npy"))) == 1


def test_a_resumed_run_keeps_its_codes_when_the_file_of_its_tokenizer_is_another_now_or_gone(
    tokenizer, capsys
):
    recipe = write_recipe(tiny_prior())
    assert runs.train("prior", recipe, "straight") == 0
    for out in ("short", "shorter"):
        assert runs.train("prior", recipe, out, "--kimg", "0.096") == 0
    held = load_weights(tokenizer)
    changed = {name: tensor * 1.5 for name, tensor in held.tensors.items()}
    save_weights(tokenizer, changed, {k: v for k, v in held.meta.items() if k != "format"})
    assert run(["train", "prior", "--resume", "short", "--kimg", "0.16", "--device", "cpu"]) == 0
    capsys.readouterr()
    runs.assert_same_state("straight", "short")
    tokenizer.unlink()
    assert run(["train", "prior", "--resume", "shorter", "--kimg", "0.16", "--device", "cpu"]) == 0
    capsys.readouterr()
    runs.assert_same_state("straight", "shorter")
    assert fails(capsys, "--resume", "short", "--tokenizer", str(tokenizer)) == (
        2,
        "error: --tokenizer cannot change a run that is resumed; it goes on with the codes that it has learned\n",
    )


def fails(capsys, *arguments):
    status = run(["train", "prior", *arguments, "--device", "cpu"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return status, said


def test_without_a_tokenizer_it_is_said_how_one_is_trained(capsys):
    assert fails(capsys) == (
        1,
        "error: no trained tokenizer in ./runs, and a prior learns the codes of one; train it first: "
        "`gtool train vqgan`, or name one by --tokenizer\n",
    )


def test_a_tokenizer_of_other_data_is_not_taken_by_itself(tokenizer, capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    status, said = fails(capsys, "--dataset", "photos")
    assert status == 1
    assert "no tokenizer of photos in ./runs; the newest, vqgan-scenes-000, is of scenes" in said


def test_the_recipe_of_a_run_takes_the_tokenizer_of_that_run_and_not_the_newest(capsys):
    first = save_tokenizer(Path(TOKENIZER))
    assert runs.train("prior", write_recipe(tiny_prior("train.kimg=0.016")), "first") == 0
    save_tokenizer(Path("runs/vqgan-scenes-001/weights-000001.safetensors"), "model.quantizer.size=64")
    assert runs.train("prior", "first/recipe.toml", "second") == 0
    assert read_table(Path("second/recipe.toml"))["prior"]["tokenizer"] == str(first.resolve())
    capsys.readouterr()
    # The recipe's own data set counts, too.
    Path("tiny.toml").write_text(to_toml(tiny_prior("data.dataset=cifar10")), encoding="utf-8")
    Path("data/cifar10").mkdir(parents=True)
    assert "no tokenizer of cifar10" in fails(capsys, "--recipe", "tiny.toml")[1]


def test_a_recipe_takes_the_newest_tokenizer_of_its_resolution(tokenizer, capsys):
    other = Path("runs/vqgan-scenes-001/weights-000001.safetensors")
    save_tokenizer(other, "model.resolution=32", "data.resolution=32")
    recipe = write_recipe(tiny_prior("train.kimg=0.016"))  # at 16 px
    assert runs.train("prior", recipe, "out") == 0
    assert read_table(Path("out/recipe.toml"))["prior"]["tokenizer"] == str(tokenizer.resolve())
    capsys.readouterr()
    tokenizer.unlink()
    assert fails(capsys, "--recipe", recipe) == (
        1,
        "error: no tokenizer of scenes at 16 px in ./runs; the newest, vqgan-scenes-001, is of scenes at 32 px: "
        "`gtool train vqgan --set data.resolution=16` trains one, --tokenizer vqgan-scenes-001 takes that one\n",
    )


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("orders", ["one", "any"])
def test_a_dry_run_states_the_memory_of_a_prior_of_label_maps(orders, capsys):
    setting = ("--set", f"model.prior.orders={orders}")
    assert run(["train", "prior", "--recipe", write_recipe(tiny_prior()), "--dry-run", *setting]) == 0
    assert "at the peak of a step" in capsys.readouterr().err


def test_weights_of_another_model_are_no_tokenizer(tokenizer, tiny_weights, capsys):
    status, said = fails(capsys, "--tokenizer", str(tiny_weights))
    assert status == 2
    assert (
        "weights of transgan; a prior learns the codes of a tokenizer: the newest is runs/vqgan-scenes-000"
        in said
    )


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.resolution=17", "no multiple of 2"),
        ("data.flip=true", "prior.encode_flipped"),
        ("prior.token_keep_prob=0", "prior.token_keep_prob"),
        ("data.condition=class", "no class labels"),
        ("data.condition=pose", "data.condition"),
        ("model.prior.heads=3", "width"),
    ],
)
def test_what_cannot_be_trained_is_one_line(setting, said, capsys):
    recipe = write_recipe(tiny_prior())
    status, message = fails(capsys, "--recipe", recipe, "--out", "out", "--set", setting)
    assert status in (1, 2)
    assert said in message
    assert not Path("out").exists()
