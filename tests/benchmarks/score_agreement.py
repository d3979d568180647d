"""Scores of `gtool eval` against clean-fid, torch-fidelity, pytorch-fid and prdc: same folders, same weights.

    pip install torch-fidelity pytorch-fid prdc scikit-learn clip-anytorch "setuptools<70"
                                                          (in an environment of its own, beside gtool)
    python tests/benchmarks/score_agreement.py [--num 64] [--side 32] [--folders A B]

Networks of Inception's and CLIP's shapes with random weights take their place. Who is compared with whom:

    clean              fid, kid            clean-fid
                       precision, recall   torch-fidelity's function on clean-fid's features
                       density, coverage   prdc on clean-fid's features
    legacy_tensorflow  fid, kid            clean-fid
                       fid, is, precision, recall   torch-fidelity, from the files
    legacy_pytorch     fid, kid            clean-fid
                       fid                 pytorch-fid (images of one size only)
    clip               clip_fid            clean-fid
                       clip_fid            torch-fidelity (--side 224 only: it resizes otherwise)
    dinov2             fd_dinov2           dgm-eval's formulas, with its --clean_resize (ViT-S/14)
                       fd_dinov2           torch-fidelity (--side 224 only)
    cmmd               cmmd                the formula of its authors' code (ViT-L/14, 336 px)
    legacy_tensorflow  mind                the formula of torch-fidelity's master, on its own features

A library that is not installed is left out and named. clean-fid's and pytorch-fid's distances need SciPy < 1.18 and
take a minute each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.helpers import clip_standin, dinov2_standin, inception_standin, pictures
from tests.helpers.clip_standin import VIT_B_32, VIT_L_14

BAR = 1e-4
MODES = ("clean", "legacy_tensorflow", "legacy_pytorch", "clip", "dinov2", "cmmd")
FLAGS = {
    "clip": ("--clip-fid", "--clip-weights"),
    "dinov2": ("--fd-dinov2", "--dinov2", "vit-s-14", "--dinov2-weights"),
    "cmmd": ("--cmmd", "--clip-large-weights"),
}
Scores = dict[str, float]


def save_folder(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:05d}.png")
    return folder


def by_gtool(folders: list[Path], weights: Path, mode: str) -> Scores:
    command = [sys.executable, "-m", "gtool", "eval", *map(str, folders)]
    inception = ("--mode", mode, "--fid", "--kid", "--is", "--pr", "--density", "--mind", "--weights")
    command += [*FLAGS.get(mode, inception), str(weights)]
    done = subprocess.run([*command, "--device", "cpu", "--json"], stdout=subprocess.PIPE, check=True)
    metrics = json.loads(done.stdout)["metrics"]
    if mode in FLAGS:
        return {name: found["value"] for name, found in metrics.items()}
    return {name: found["value"] for name, found in metrics.items()} | {
        "is_deviation": metrics["is"]["deviation"]
    }


def clean_fid_features(folders: list[Path], plain: Path, script: Path, mode: str) -> list[np.ndarray]:
    from cleanfid import fid, inception_pytorch
    from cleanfid.inception_torchscript import InceptionV3W

    if mode == "legacy_pytorch":
        inception_pytorch.load_state_dict_from_url = lambda *_, **__: torch.load(plain)
        network = inception_pytorch.InceptionV3(resize_input=False).eval()
        model: Callable[[Any], Any] = lambda batch: network(batch / 255)[0].flatten(1)  # noqa: E731
    else:
        inside = mode == "legacy_tensorflow"
        model = InceptionV3W(str(script.parent), download=False, resize_inside=inside).eval()
    settings = {"num_workers": 0, "batch_size": 8, "device": torch.device("cpu"), "verbose": False}
    return [fid.get_folder_features(str(folder), model, mode=mode, **settings) for folder in folders]


def by_clean_fid(features: list[np.ndarray]) -> Scores:
    from cleanfid import fid

    np.random.seed(0)  # its subsets come from NumPy's global generator
    return {"kid": fid.kernel_distance(*features), "fid": fid.fid_from_feats(*features)}


def by_prdc(features: list[np.ndarray]) -> Scores:
    from prdc import compute_prdc

    fake, real = (rows.astype(np.float64) for rows in features)
    with contextlib.redirect_stdout(io.StringIO()):
        found = compute_prdc(real, fake, nearest_k=5)
    return {name: float(found[name]) for name in ("density", "coverage")}


def by_torch_fidelity_rows(features: list[np.ndarray]) -> Scores:
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    fake, real = (torch.from_numpy(rows).double() for rows in features)
    return dict(
        zip(("precision", "recall"), calculate_precision_recall_part(fake, real, neighborhood=3), strict=True)
    )


def by_torch_fidelity(folders: list[Path], plain: Path) -> Scores:
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        cuda=False,
        isc=True,
        fid=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(plain),
        feature_layer_prc="2048",
        cache=False,
        verbose=False,
        samples_find_ext="png",
    )
    names = {
        "inception_score_mean": "is",
        "inception_score_std": "is_deviation",
        "frechet_inception_distance": "fid",
        "precision": "precision",
        "recall": "recall",
    }
    return {ours: float(found[theirs]) for theirs, ours in names.items()}


def by_pytorch_fid(folders: list[Path], plain: Path) -> Scores:
    from pytorch_fid import fid_score, inception

    inception.load_state_dict_from_url = lambda *_, **__: torch.load(plain)
    value = fid_score.calculate_fid_given_paths(
        [str(folder) for folder in folders], 8, torch.device("cpu"), 2048, num_workers=0
    )
    return {"fid": float(value)}


def clip_by_clean_fid(folders: list[Path], weights: Path) -> Scores:
    import clip
    from cleanfid import fid

    clip.clip._download = lambda *_, **__: str(weights)
    settings: dict[str, Any] = {"num_workers": 0, "batch_size": 8, "device": "cpu", "verbose": False}
    value = fid.compute_fid(*map(str, folders), model_name="clip_vit_b_32", **settings)
    return {"clip_fid": float(value)}


def clip_by_torch_fidelity(folders: list[Path], weights: Path) -> Scores:
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        cuda=False,
        fid=True,
        feature_extractor="clip-vit-b-32",
        feature_extractor_weights_path=str(weights),
        cache=False,
        verbose=False,
        samples_find_ext="png",
    )
    return {"clip_fid": float(found["frechet_inception_distance"])}


def by_mind_formula(features: list[np.ndarray]) -> Scores:
    """torch-fidelity's metric_mind.py of 2026-05, which no release has: its draws, in fp64."""
    fake, real = (torch.from_numpy(rows).double() for rows in features)
    random, count = torch.Generator().manual_seed(2020), min(len(fake), len(real))
    rows = [
        x if len(x) == count else x[torch.randperm(len(x), generator=random)[:count]] for x in (fake, real)
    ]
    directions = torch.randn(1000, fake.shape[1], generator=random).double()
    directions /= directions.norm(dim=1, keepdim=True)
    x, y = ((one @ directions.T).sort(dim=0).values for one in rows)
    return {"mind": float(3 * fake.shape[1] * (x - y).square().mean())}


def pixels_of(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("RGB"), np.float32) for path in sorted(folder.iterdir())]


def dinov2_by_dgm_eval(folders: list[Path], network: torch.nn.Module) -> Scores:
    """Resize each channel as a float image, clip, normalise; mean, covariance and scipy's square root."""
    from scipy.linalg import sqrtm

    moments = []
    for folder in folders:
        resized = [
            [
                np.asarray(Image.fromarray(one[..., c]).resize((224, 224), Image.BICUBIC)).clip(0, 255)
                for c in range(3)
            ]
            for one in pixels_of(folder)
        ]
        pixels = torch.from_numpy(np.array(resized)) / 255
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        rows = network((pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)).double().numpy()
        moments.append((rows.mean(0), np.cov(rows, rowvar=False)))
    (mean_1, sigma_1), (mean_2, sigma_2) = moments
    trace = np.trace(sigma_1 + sigma_2 - 2 * sqrtm(sigma_1 @ sigma_2).real)
    return {"fd_dinov2": float(((mean_1 - mean_2) ** 2).sum() + trace)}


def dinov2_by_torch_fidelity(folders: list[Path], network: torch.nn.Module) -> Scores:
    from torch_fidelity import calculate_metrics

    torch.hub.load = lambda *_, **__: network  # it loads the authors' repository and weights
    paths: dict[str, Any] = {"input1": str(folders[0]), "input2": str(folders[1])}
    settings: dict[str, Any] = {"cuda": False, "cache": False, "verbose": False, "samples_find_ext": "png"}
    found = calculate_metrics(**paths, fid=True, feature_extractor="dinov2-vit-s-14", **settings)
    return {"fd_dinov2": float(found["frechet_inception_distance"])}


def cmmd_by_formula(folders: list[Path], network: torch.nn.Module) -> Scores:
    """Embeddings of unit length; the mean of a Gaussian kernel over all pairs, those of equal places too."""
    rows = []
    for folder in folders:
        images = [Image.fromarray(one.astype(np.uint8)) for one in pixels_of(folder)]
        pixels = np.stack([np.asarray(image.resize((336, 336), Image.BICUBIC)) for image in images])
        mean, deviation = (np.array(values) for values in (clip_standin.MEAN, clip_standin.DEVIATION))
        inputs = torch.from_numpy((pixels / 255 - mean) / deviation).float().permute(0, 3, 1, 2)
        with torch.no_grad():
            found = torch.cat([network(part) for part in inputs.split(8)]).double()
        rows.append(found / found.norm(dim=1, keepdim=True))
    x, y = rows
    kernel = [torch.exp(-torch.cdist(a, b).square() / 200).mean() for a, b in ((x, x), (y, y), (x, y))]
    return {"cmmd": float(1000 * (kernel[0] + kernel[1] - 2 * kernel[2]))}


def dinov2_comparisons(
    folders: list[Path], network: torch.nn.Module
) -> Iterator[tuple[str, Callable[[], Scores]]]:
    """Yield who else scores by DINOv2's features, and how."""
    with Image.open(next(folders[0].iterdir())) as first:
        if first.size == (224, 224):
            yield "torch-fidelity", lambda: dinov2_by_torch_fidelity(folders, network)
    yield "dgm-eval's formulas", lambda: dinov2_by_dgm_eval(folders, network)


def clip_comparisons(folders: list[Path], weights: Path) -> Iterator[tuple[str, Callable[[], Scores]]]:
    """Yield who else scores by CLIP's features, and how."""
    with Image.open(next(folders[0].iterdir())) as first:
        if first.size == (224, 224):
            yield "torch-fidelity", lambda: clip_by_torch_fidelity(folders, weights)
    yield "clean-fid", lambda: clip_by_clean_fid(folders, weights)


def comparisons(
    mode: str, folders: list[Path], plain: Path, script: Path
) -> Iterator[tuple[str, Callable[[], Scores]]]:
    """Yield who else scores in this mode, and how."""
    features = clean_fid_features(folders, plain, script, mode)
    if mode == "clean":
        yield "torch-fidelity (rows)", lambda: by_torch_fidelity_rows(features)
        yield "prdc", lambda: by_prdc(features)
    if mode == "legacy_tensorflow":
        yield "torch-fidelity", lambda: by_torch_fidelity(folders, plain)
        yield "torch-fidelity's formula", lambda: by_mind_formula(features)
    if mode == "legacy_pytorch":
        yield "pytorch-fid", lambda: by_pytorch_fid(folders, plain)
    yield "clean-fid", lambda: by_clean_fid(features)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--folders", nargs=2, type=Path)
    parser.add_argument("--modes", nargs="+", default=MODES)
    parser.add_argument("--libraries", nargs="+", help="only these, by the names that are printed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    worst, missing = 0.0, set()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["GTOOL_CACHE"] = str(Path(temporary) / "cache")
        plain, script = inception_standin.make(Path(temporary))
        encoder = clip_standin.build(VIT_B_32)
        clip = clip_standin.save_script(clip_standin.openai_state(encoder), Path(temporary) / "ViT-B-32.pt")
        clip_of_hub = clip_standin.save_all(encoder, Path(temporary))["pickled"]
        dinov2, large = dinov2_standin.build(), clip_standin.build(VIT_L_14)
        dinov2_file = dinov2_standin.save(dinov2, Path(temporary) / "dinov2.safetensors")
        (Path(temporary) / "large").mkdir()
        large_file = clip_standin.save_all(large, Path(temporary) / "large")["safetensors"]
        noisy = pictures.noisy(pictures.draw(options.num, 1, options.side), 4)
        folders = options.folders or [
            save_folder(Path(temporary) / "fake", noisy),
            save_folder(Path(temporary) / "real", pictures.draw(options.num + 9, 2, options.side)),
        ]
        for mode in options.modes:
            places = {"clip": clip_of_hub, "legacy_pytorch": plain, "dinov2": dinov2_file, "cmmd": large_file}
            ours = by_gtool(folders, places.get(mode, script), mode)
            if mode == "clip":
                others = clip_comparisons(folders, clip)
            elif mode == "dinov2":
                others = dinov2_comparisons(folders, dinov2)
            elif mode == "cmmd":
                others = iter([("its authors' formula", lambda: cmmd_by_formula(folders, large))])
            else:
                others = comparisons(mode, folders, plain, script)
            for library, score in others:
                if options.libraries and library not in options.libraries:
                    continue
                started = time.process_time()
                try:
                    theirs = score()
                except ImportError as absent:
                    missing.add(f"{library}: {absent}")
                    continue
                for name, value in theirs.items():
                    difference = abs(ours[name] - value) / max(abs(value), 1e-12)
                    worst = max(worst, difference if np.isfinite(difference) else np.inf)
                    print(f"{mode} {name}: {ours[name]:.8g}, {library} {value:.8g}, off by {difference:.1e}")
                print(f"  ({library}: {time.process_time() - started:.0f} CPU-seconds)", flush=True)
    for line in sorted(missing):
        print(f"left out: {line}")
    print(f"largest relative difference {worst:.1e}, bar {BAR:.0e}")
    sys.exit(worst > BAR)


if __name__ == "__main__":
    main()
