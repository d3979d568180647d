"""`gtool eval`: the numbers of each metric, gates and files."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torchvision.models import inception_v3

from .commands import leaves, save_pictures, score


def darker(picture: np.ndarray) -> np.ndarray:
    return picture // 4 * 3


@pytest.fixture
def folders(tmp_path):
    """Pictures, and others of the same kind that are darker."""
    real = save_pictures(tmp_path / "real", 24, 32)
    return save_pictures(tmp_path / "fake", 24, 32, first=100, change=darker), real


@pytest.fixture(scope="session")
def inception(tmp_path_factory):
    """Random weights in the layout of Inception, of which each layer's outputs have the usual scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over all batches, which is one
                module.bias.data.normal_(0, 0.1)
        torch.nn.init.normal_(network.fc.weight, 0, 0.02)
        torch.nn.init.zeros_(network.fc.bias)
        noise = torch.nn.functional.interpolate(torch.rand(3, 3, 20, 20), 299, mode="bilinear")
        with torch.no_grad():
            network.train()(noise * 2 - 1)
    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(network.state_dict(), path)
    return path


def answer(capsys, *arguments):
    capsys.readouterr()  # of the training that a fixture may just have done
    assert score(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def numbers(metrics):
    """Values and what stands beside them, without digests and seeds."""
    names = ("value", "floor", "ratio", "deviation", "num_fake", "num_real")
    return {key: number for key, number in leaves(metrics).items() if key.rpartition(".")[2] in names}


# Metrics.


def test_two_folders_have_the_same_rfd_and_swd(folders, capsys, frozen):
    record = answer(capsys, *folders, "--rfd", "--swd")
    frozen.numbers("eval/folders", numbers(record["metrics"]))


def test_pairs_have_the_same_psnr_ssim_and_l1(folders, tmp_path, capsys, frozen):
    made = save_pictures(tmp_path / "made", 24, 32, change=darker)
    record = answer(capsys, made, folders[1], "--paired")
    frozen.numbers("eval/paired", numbers(record["metrics"]))


def test_metrics_of_inception_are_the_same(folders, inception, capsys, frozen):
    asked = ["--fid", "--kid", "--is", "--pr", "--density", "--num", 12, "--seed", 3, "--weights", inception]
    record = answer(capsys, *folders, *asked)
    frozen.numbers("eval/inception", numbers(record["metrics"]), share=0.02, within=0.15)


@pytest.mark.parametrize("model", ["transgan", "gansformer", "prior"])
def test_a_run_has_the_same_scores_against_its_own_data(model, run_of, capsys, frozen):
    record = answer(capsys, run_of(model), "--num", 16)
    frozen.numbers(f"eval/{model}", numbers(record["metrics"]), share=0.25)


# Looks into a model.


def test_attention_has_the_same_scores(run_of, capsys, frozen):
    record = answer(capsys, run_of("gansformer"), "--attention", "--num", 8)["attention"]
    scores = leaves({place: layer["scores"] for place, layer in enumerate(record["layers"])})
    values = {name: number for name, number in scores.items() if name.endswith(".value")}
    frozen.numbers("eval/attention", values, share=0.1, within=0.1)


def test_reconstructions_have_the_same_scores(run_of, capsys, frozen):
    record = answer(capsys, run_of("vqgan"), "--reconstruction")["reconstruction"]
    frozen.numbers("eval/reconstruction", leaves(record), share=0.25, within=0.05)


def test_agreement_with_maps_is_the_same(run_of, capsys, frozen):
    record = answer(capsys, run_of("prior"), "--map-agreement", "--num", 6)["map_agreement"]
    found = {
        f"{name}.{measure}": record[name][measure]
        for name in ("samples", "reconstructions", "real", "shuffled")
        for measure in ("pixels", "mean_iou")
    }
    frozen.numbers("eval/map-agreement", found, within=0.1)


# Gates and files.


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        (["--max", "rfd.ratio=0.0001"], 4),
        (["--max", "rfd.ratio=1e9"], 0),
        (["--min", "rfd=1e9"], 4),
        (["--max", "rfd.ratio=0.0001:warn"], 0),
        (["--max", "rfd.ratio=0.0001", "--exit-zero"], 0),
        (["--max", "rfd=1e9", "--max", "swd_16=0"], 4),
    ],
)
def test_a_gate_sets_the_exit_status_and_every_file_is_written(gate, status, folders):
    files = ["result.json", "result.xml", "result.md", "result.html", "result.jsonl"]
    places = [word for file in files for word in ("-o", file)]
    assert score(*folders, "--num", 8, *gate, *places) == status
    assert all(Path(file).stat().st_size for file in files)
    record = json.loads(Path("result.json").read_text(encoding="utf-8"))
    assert record == json.loads(Path("result.jsonl").read_text(encoding="utf-8"))
    missed = [gate for gate in record["gates"] if not gate["passed"]]
    assert bool(missed) == ("0.0001" in " ".join(gate) or status == 4)
    root = ElementTree.parse("result.xml").getroot()
    assert len(list(root.iter("testcase"))) == len(record["gates"])


def test_a_baseline_is_met_by_its_own_numbers_and_missed_by_worse_ones(folders, tmp_path):
    fake, real = folders
    worse = save_pictures(tmp_path / "worse" / "fake", 24, 32, first=100, change=lambda x: x // 8)
    assert score(fake, real, "--rfd", "-o", "before.json") == 0
    compared = ["--baseline", "before.json", "--max-regress", "rfd=5%"]
    assert score(fake, real, *compared) == 0
    assert score(worse, real, *compared) == 4
