"""Metrics of pairs: how near the pictures of one folder are to those of the same names in another."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from gtool import console
from gtool.errors import DataError, printable
from gtool.eval.image_sets import ImageSpec, StoredImages, open_stored
from gtool.eval.sheets import save_differences, sheet_here
from gtool.metrics.intervals import with_interval
from gtool.metrics.registry import METRICS, SCORES
from gtool.runtime.device import Compute

SHOWN = 8  # pairs on the sheet, the worst
NAMED = 3  # names in a message
BATCH = 16  # pairs that are decoded ahead
Pairs = tuple[StoredImages, StoredImages, list[str]]  # images of both sides in one order, and their names


def score_pairs(
    fake: ImageSpec, real: ImageSpec, metrics: Sequence[str], compute: Compute, *, seed: int = 0
) -> dict[str, Any]:
    """Return what the record says of two folders: `reference`, `images`, `metrics`, and where the sheet is.

    DataError for pictures without partner, or of other size than their partner.
    """
    pairs, left_out = open_pairs(fake, real)
    values, count = _measure(pairs, metrics, compute), len(pairs[2])
    size = f"/{real.resolution}px{'@fit' if real.crop == 'fit' else ''}" if real.resolution else ""
    partner, content = pairs[1].dataset.name, pairs[1].key["source"]
    tail = f"{size}/n{count}/ref-{printable(Path(partner).name)}"
    common = {"num_fake": count, "num_real": count, "dtype": "fp32", "reference": content, "weights": None}
    common["seed"] = seed
    scores = {}
    for name, found in values.items():
        value, low, high = with_interval(name, float(np.mean(found)), np.array(found)).values()
        protocol = f"{SCORES[name].protocol or name}{tail}"
        scores[name] = {"value": value, "low": low, "high": high, "protocol": protocol, **common}
    picture = _write_sheet(pairs, values)
    console.notice(f"the pairs farthest apart: {picture}")
    return {
        "reference": {"name": partner, "fingerprint": content, "resolution": real.resolution or 0},
        "images": {"fake": pairs[0].summary, "real": pairs[1].summary},
        **({"pairs_left_out": left_out} if left_out else {}),
        "metrics": scores,
        "picture": str(picture),
    }


def _measure(pairs: Pairs, metrics: Sequence[str], compute: Compute) -> dict[str, list[float]]:
    """Return each score of every pair, by its name."""
    functions = [METRICS[metric].load() for metric in metrics]
    values: dict[str, list[float]] = {}
    count = len(pairs[2])
    with console.progress("comparing pairs", "pairs") as update:
        for number, (name, fake, real) in enumerate(_read(pairs), 1):
            if fake.shape != real.shape:
                sizes = " and ".join(f"{image.shape[2]}x{image.shape[1]}" for image in (fake, real))
                raise DataError(
                    f"{name}: partners of different size ({sizes}); crop and resize both with --resolution R"
                )
            for function in functions:
                try:
                    found = function(fake[None].to(compute.device), real[None].to(compute.device))
                except DataError as bad:
                    raise DataError(f"{name}: {bad}") from None
                for score, value in found.items():
                    values.setdefault(score, []).append(float(value))
            update(number, count)
    return values


def _read(pairs: Pairs) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the name and both images uint8 (3, H, W) of each pair."""
    fake, real = ((image for batch in one.batches(BATCH) for image in batch) for one in pairs[:2])
    yield from zip(pairs[2], fake, real, strict=True)


def open_pairs(fake: ImageSpec, real: ImageSpec) -> tuple[Pairs, list[str]]:
    """Pair the images of two folders by their relative names without suffix; partners of one size need not be square.

    Returns the pairs that can be read, and the names of those that cannot. DataError where an image has no partner, two
    have one name, or too few are left.
    """
    specs = [spec if spec.resolution else replace(spec, crop="fit") for spec in (fake, real)]
    opened = [open_stored(spec, None, 0) for spec in specs]
    names = [_stems(map(one.dataset.name_of, range(len(one.dataset)))) for one in opened]
    for ours, theirs, spec in ((0, 1, real), (1, 0, fake)):
        if alone := sorted(names[ours].keys() - names[theirs].keys()):
            raise DataError(
                f"{spec.dataset}: no partner for {len(alone):,} of {len(names[ours]):,} pictures ({_some(alone)}); "
                "partners have one name, whatever their suffix"
            )
    readable = [_stems(one.names) for one in opened]  # where they lie among those that can be read
    kept = sorted(readable[0].keys() & readable[1].keys())
    left_out = sorted(names[0].keys() - set(kept))
    if left_out:
        console.warning(f"{len(left_out):,} of {len(names[0]):,} pairs are left out: {_some(left_out)}")
    if not kept:
        raise DataError(f"{fake.dataset}: no pair is left to compare")
    first, second = (
        one.subset(np.array([places[name] for name in kept]))
        for one, places in zip(opened, readable, strict=True)
    )
    return (first, second, kept), left_out


def _stems(names: Any) -> dict[str, int]:
    """Return names without suffix -> their place; DataError where two are the same."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in places:
            raise DataError(f"two pictures are called {stem}; which one is the partner?")
        places[stem] = place
    return places


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _write_sheet(pairs: Pairs, values: dict[str, list[float]]) -> Path:
    """Draw the pairs that are farthest apart by the first score, and where they differ, into the current folder."""
    score, found = next(iter(values.items()))
    order = np.argsort(found, kind="stable")
    worst = (order if SCORES[score].higher_is_better else order[::-1])[:SHOWN]
    fake, real, names = pairs
    chosen = fake.subset(worst), real.subset(worst), [names[place] for place in worst]
    fakes, reals = zip(*((_square(a.numpy()), _square(b.numpy())) for _, a, b in _read(chosen)), strict=True)
    unit = " dB" if score == "psnr" else ""
    return save_differences(
        {"picture": fakes, "original": reals},
        [f"{found[place]:.1f}{unit}" for place in worst],
        f"{fake.dataset.name}: the {len(worst)} farthest from their originals",
        sheet_here("paired"),
        {"images": ", ".join(chosen[2])},
    )


def _square(image: np.ndarray) -> np.ndarray:
    """Return the image (3, H, W) on a white square of its longer side."""
    _, H, W = image.shape
    top, left = (max(H, W) - H) // 2, (max(H, W) - W) // 2
    around = ((0, 0), (top, max(H, W) - H - top), (left, max(H, W) - W - left))
    return np.pad(image, around, constant_values=255)
