"""What a run leaves for people: grids, an animation, curves, the log, the line of a tick."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gtool.io.files import atomic_write
from gtool.io.pictures import grid, save_png
from gtool.io.run_folder import RunFolder
from gtool.io.video import save_animation
from gtool.train.curves import save_curves
from gtool.train.loop import Tick

ANIMATION_FRAMES = 100  # at most: a long run is thinned out
# Titles of the panels of curves.png, and the records that each shows; a trailing * stands for any ending.
PANELS = {
    "losses": ["discriminator_loss", "generator_loss", "reward", "known_decision", "gain_decision"],
    "logits": ["real_logit", "fake_logit"],
    "augmentation": ["augment_p"],
    "rfd": ["rfd", "rfd_floor"],
    "error left": ["left", "left_*"],
    "swd": ["swd_*"],
    "PSNR of reconstructions (dB)": ["psnr"],
    "negative log-likelihood (nats per code)": ["nll", "nll_shuffled", "unigram"],
}


class Log:
    """log.jsonl: one line a tick, flushed at once; a resumed run drops the lines after its state."""

    def __init__(self, run: RunFolder, nimg: int) -> None:
        self._path = run.log
        kept = [line for line in read_log(run) if line["nimg"] <= nimg]
        with atomic_write(self._path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


def read_log(run: RunFolder) -> list[dict[str, Any]]:
    """Return the records of a run; a line that a crash cut short is left out."""
    records = []
    if run.log.is_file():
        for line in run.log.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


def tick_record(tick: Tick, rate: float, scores: Mapping[str, float]) -> dict[str, Any]:
    """Return a tick as plain numbers for the log."""
    return {
        "nimg": tick.nimg,
        "kimg": round(tick.nimg / 1000, 3),
        "steps": tick.steps,
        "seconds": round(tick.seconds, 2),
        "progress": round(tick.progress, 5),
        "images_per_second": round(tick.images_per_second, 2),
        "learning_rate": rate,
        **{name: round(value, 6) for name, value in tick.stats.items()},
        **scores,
    }


def tick_note(tick: Tick, scores: Mapping[str, float]) -> str:
    """Return the part of a progress line that changes: where, how fast, how it is going."""
    note = f"{tick.nimg / 1000:.1f} kimg  {tick.images_per_second:.0f} img/s"
    if "real_logit" in tick.stats:
        note += f"  D gap {tick.stats['real_logit'] - tick.stats['fake_logit']:+.2f}"
    elif "left" in tick.stats:
        note += f"  error left {tick.stats['left']:.3f}"
    return f"{note}  {score_note(scores)}" if scores else note


def score_note(scores: Mapping[str, float]) -> str:
    """Return scores as `rfd 12.3 (8.1x floor)`."""
    with_floor = [name for name in scores if f"{name}_floor" in scores]
    return "  ".join(
        f"{name} {scores[name]:.4g} ({scores[name] / scores[f'{name}_floor']:.1f}x floor)"
        for name in with_floor
    ) or "  ".join(f"{name} {value:.3f}" for name, value in scores.items())


def save_grid(
    run: RunFolder, name: str, images: np.ndarray, columns: int | None, text: Mapping[str, str]
) -> None:
    """Write uint8 (N, 3, R, R) as one picture in the run's samples folder, with texts in its metadata."""
    save_png(run.samples / f"{name}.png", grid(images, columns=columns), dict(text))


def save_animation_of_run(run: RunFolder, fps: float) -> Path | None:
    """Write training.webp from the grids of the run, first to last; None when there are fewer than two."""
    grids = sorted(run.samples.glob("[0-9]*.png"))
    if len(grids) < 2:
        return None
    stride = -(-len(grids) // ANIMATION_FRAMES)
    chosen = [*grids[:-1:stride], grids[-1]]

    def frames() -> Iterable[np.ndarray]:
        for path in chosen:
            with Image.open(path) as opened:
                frame = np.asarray(opened.convert("RGB"))
            # The result stays long enough to be looked at.
            yield from [frame] * (1 if path is not chosen[-1] else max(1, round(2 * fps)))

    save_animation(run.path / "training.webp", frames(), fps)
    return run.path / "training.webp"


def save_curves_of_run(run: RunFolder) -> Path | None:
    """Write curves.png: losses, logits and scores, as far as the run has any; None when nothing has been logged."""
    records = read_log(run)
    panels = {}
    for title, patterns in PANELS.items():
        names = [name for pattern in patterns for name in _matching(records, pattern)]
        if lines := {name: _line(records, name) for name in names}:
            panels[title] = lines
    if not panels:
        return None
    save_curves(run.path / "curves.png", panels, x_label="kimg", log=("rfd", "swd"))
    return run.path / "curves.png"


def _matching(records: list[dict[str, Any]], pattern: str) -> list[str]:
    names = dict.fromkeys(name for record in records for name in record)
    return [n for n in names if n == pattern or (pattern[-1] == "*" and n.startswith(pattern[:-1]))]


def _line(records: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Return kimg and values of the records that have a value."""
    found = [(record["kimg"], record[name]) for record in records if name in record]
    return [kimg for kimg, _ in found], [value for _, value in found]
