"""Is gtool right and fast on this GPU? `python -m tests.benchmarks.gpu_check`, ten minutes on one NVIDIA GPU.

right    three steps of a small recipe of every family, on the CPU and on the GPU, in fp32 without TF32 and from the
         same random numbers: how far the statistics of the first and of all steps are apart; finite in bf16.
exact    with train.deterministic, four steps twice, and two steps, save, restore, two steps: the same bits?
verbs    train, sample, paint, eval and export with --device, each ends with status 0.
fast     images a second, milliseconds a step, share of the bf16 rate that this GPU reaches in a matrix product, peak
         memory, waits of the host for the GPU (torch.cuda.set_sync_debug_mode).

--device cpu tries the script; --parts and --families choose. Each part of a family is a process of its own. The table
belongs into docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtool.io.weights import load_weights, save_weights
from gtool.runtime.device import make_compute
from gtool.runtime.precision import without_tf32
from gtool.runtime.torch_random import make_generator
from gtool.train import gan, gan_state
from tests.helpers import steps, tiny
from tests.helpers.verbs import failed

TINY = {
    "transgan": (tiny.tiny_recipe, ("augment.policy='ada,cutout'",)),
    "gansformer": (tiny.tiny_gansformer, ("loss.path_length=2.0", "loss.path_length_interval=2")),
    "vqgan": (
        tiny.tiny_tokenizer,
        ("reconstruction.discriminator_start=0.0", "reconstruction.adversarial_start=0.0"),
    ),
    "prior": (tiny.tiny_prior, ("prior.token_keep_prob=0.9",)),
    "paint-transformer": (tiny.tiny_strokes, ()),
}
SPEED = {
    "transgan": ("transgan/scenes", "transgan/cifar10", "transgan/celeba-128", "transgan/church-256"),
    "gansformer": ("gansformer/scenes", "gansformer/ffhq"),
    "vqgan": ("vqgan/scenes", "vqgan/folder", "vqgan/imagenet"),
    "prior": ("prior/scenes", "prior/ffhq"),
    "paint-transformer": ("paint-transformer/default", "paint-transformer/original"),
}
SECONDS = 4.0  # that a recipe is timed for


def begin(family: str, device: str, precision: str = "fp32", deterministic: bool = False) -> Any:
    recipe_of, settings = TINY[family]
    recipe = recipe_of(*settings)
    torch.manual_seed(0)
    compute = make_compute(device, precision, deterministic=deterministic)
    return steps.begin(recipe, steps.config_of(recipe, tiny.TOKENIZER["model"]), compute)


def run(state: Any, step: Any, count: int) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in step(state).items()} for _ in range(count)]


def apart(one: list[dict[str, float]], two: list[dict[str, float]]) -> float:
    """Return the largest relative difference of a statistic."""
    pairs = [(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a]
    return max(abs(a - b) / max(abs(a), abs(b), 1e-3) for a, b in pairs)


def right(family: str, device: str) -> dict[str, Any]:
    def on_cpu(state: Any, purpose: str, critic: int = 0) -> torch.Generator:
        return make_generator(state.recipe.train.seed, purpose, state.steps, critic)

    gan.random_of = gan_state.random_of = on_cpu
    wanted = run(*begin(family, "cpu"), 3)
    with without_tf32():
        found = run(*begin(family, device), 3)
    half = run(*begin(family, device, "bf16"), 3)
    first, all_three = apart(wanted[:1], found[:1]), apart(wanted, found)
    finite = all(np.isfinite(list(stats.values())).all() for stats in half)
    # One step is rounding alone; later ones pass through Adam, whose steps of near-zero gradients have any sign.
    return {
        "ok": first < 2e-3 and all_three < 5e-2 and finite,
        "first": first,
        "three": all_three,
        "finite": finite,
    }


def bits(state: Any) -> list[bytes]:
    groups = state.tensors()
    return [groups[g][n].detach().cpu().numpy().tobytes() for g in sorted(groups) for n in sorted(groups[g])]


def exact(family: str, device: str) -> dict[str, Any]:
    found = []
    for stop in (None, None, 2):
        state, step = begin(family, device, "bf16", deterministic=True)
        if stop:
            run(state, step, stop)
            groups, info, read = state.tensors(), json.loads(json.dumps(state.info())), {}
            with tempfile.TemporaryDirectory() as folder:
                for name, tensors in groups.items():
                    path = Path(folder) / f"{name}.safetensors"
                    save_weights(path, tensors, {})
                    read[name] = load_weights(path).tensors
            state, step = begin(family, device, "bf16", deterministic=True)
            state.restore(read, info, "here")
            state.progress = 0.5
        run(state, step, 4 - (stop or 0))
        found.append(bits(state))
    repeats, resumes = found[0] == found[1], found[0] == found[2]
    return {"ok": repeats and resumes, "repeats": repeats, "resumes": resumes}


def verbs(family: str, device: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        found = failed(family, device)
    return {"ok": not found, "failed": found}


def fast(family: str, device: str) -> dict[str, Any]:
    gpu = device != "cpu"
    rate = matmul_rate(device, 8192 if gpu else 512)
    rows = {}
    for name in SPEED[family] if gpu else SPEED[family][:1]:
        tokenizer = (
            {"kind": "palette"} if name == "prior/image-gpt" else dict(steps.shipped("vqgan/scenes").model)
        )
        recipe = steps.shipped(name)
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        state, step = steps.begin(recipe, steps.config_of(recipe, tokenizer), make_compute(device, "auto"))
        step(state)
        wait(device)
        start, before, count = time.perf_counter(), state.nimg, 0
        while time.perf_counter() - start < SECONDS or count < 2:
            step(state)
            wait(device)
            count += 1
        seconds = time.perf_counter() - start
        row = {"images_s": (state.nimg - before) / seconds, "ms": 1000 * seconds / count}
        row["of_rate"] = flops(state, step) / (seconds / count) / rate
        if gpu:
            row |= {"gib": torch.cuda.max_memory_allocated() / 2**30, "waits": waits(state, step)}
        rows[name] = {key: round(value, 3) for key, value in row.items()}
        del state
    return {"ok": True, "matmul_tflop_s": round(rate / 1e12, 1), "recipes": rows}


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def matmul_rate(device: str, side: int) -> float:
    left = torch.randn(side, side, device=device).bfloat16()
    left @ left
    wait(device)
    start = time.perf_counter()
    for _ in range(10):
        left @ left
    wait(device)
    return 20 * side**3 / (time.perf_counter() - start)


def flops(state: Any, step: Any) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(state)
    return float(counter.get_total_flops())


def waits(state: Any, step: Any) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step(state)
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


PARTS = {"right": right, "exact": exact, "verbs": verbs, "fast": fast}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--families", default=",".join(TINY))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(sys.stderr):
                found = PARTS[options.parts](options.families, options.device)
        except Exception:
            found = {"ok": False, "error": traceback.format_exc()[-1500:]}
        print(json.dumps(found, default=str))
        return 0
    failed = 0
    for family in options.families.split(","):
        for part in options.parts.split(","):
            words = ["--worker", "--device", options.device, "--families", family, "--parts", part]
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, *words], capture_output=True, text=True
            )
            found = json.loads(done.stdout) if done.stdout else {"ok": False, "error": done.stderr[-1500:]}
            failed += not found["ok"]
            said = json.dumps({key: value for key, value in found.items() if key != "ok"})
            verdict = "ok" if found["ok"] else "FAILED"
            print(f"{family:18} {part:6} {verdict:6} {time.monotonic() - started:4.0f} s  {said}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
