"""Painting a photo: ours against the released inference, interleaved in one run.

    python -m tests.benchmarks.paint_speed --reference CHECKOUT_OF_PaintTransformer --photo FILE
    [--sizes 512 1024] [--rounds 3] [--threads 2] [--weights FILE]

The work is from a photo file to a painted file, squares of the given sizes: reading, network, rendering and
writing; the released one in its parallel mode with random weights (its time does not depend on them), ours down
to the same level of the pyramid. Every contestant is a process of its own. The first round, which includes loading
the network, is printed apart; of the others the median.

Measured, a portrait of 341 x 512 pixels, one thread: 1.28 s CPU of painting, 0.23 of rendering and writing (1.70 and
0.43 before pixels were gathered by `index_select`; the picture is the same). A square of 512 pixels on one thread with
AVX2, beside other work: ours 2.8 s CPU (gain) and 2.6 s (decision), 15.1 and 16.4 times less than the release; with
AMX, beside a training: 1.34 s and 1.03 s, 18.1 and 23.5 times less.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from tests.benchmarks.race import Times, race, serve

OURS = {"gtool gain": "gain", "gtool decision": "decision"}
RELEASED = "released"


def their_painting(checkout: Path, photo: Path, size: int) -> Callable[[], None]:
    """Return the released inference for a file, with random weights of its own network."""
    os.chdir(checkout / "inference")
    sys.path.insert(0, ".")
    import inference
    import network

    folder = Path(tempfile.mkdtemp())
    model = folder / "model.pth"
    painter = network.Painter(5, 8, 256, 8, 3, 3)
    torch.nn.init.constant_(painter.linear_decider.bias, 2.0)  # it fails where a level has no stroke
    torch.save(painter.state_dict(), model)

    def work() -> None:
        inference.main(str(photo), str(model), str(folder), resize_h=size, resize_w=size, serial=False)

    return work


def our_painting(photo: Path, size: int, select: str, weights: Path | None) -> Callable[[], None]:
    """Return ours for a file; the network is loaded by the first call."""
    from gtool.io.photo import read_photo
    from gtool.models.paint_transformer.proposals import load_predictor
    from gtool.paint.outputs import write_files
    from gtool.paint.painter import Painter, level_for
    from gtool.runtime.device import make_compute
    from gtool.strokes.brush import load_brush
    from gtool.strokes.painting import deepest_level
    from gtool.strokes.settings import PaintSettings

    folder = Path(tempfile.mkdtemp())
    square = folder / "square.png"
    Image.open(photo).convert("RGB").resize((size, size), Image.Resampling.BICUBIC).save(square)
    opened: list[Painter] = []
    deepest = deepest_level(size, size)  # as far as the released code goes
    detail = next(step / 20 for step in range(21) if level_for(step / 20, deepest) == deepest)
    settings = PaintSettings(select="decision" if select == "decision" else "gain")

    def work() -> None:
        if not opened:
            compute = make_compute("cpu", "auto")
            opened.append(Painter(settings, detail, load_brush("flat"), load_predictor(weights, compute)))
        read = read_photo(square, size)
        painting = opened[0].paint(read)
        assert int(painting.levels.max()) > deepest  # the shifted pass, and finer strokes where they help
        write_files({"out": folder / "painted.jpg"}, painting, read.size, (1, 1.0), photo=read)

    return work


def report(size: int, results: dict[str, list[Times]]) -> None:
    """Print times, peaks and ratios."""
    print(f"\n{size} x {size}")
    theirs = {kind: median(times[kind] for times in results[RELEASED][1:]) for kind in ("wall", "cpu")}
    for name, rounds in results.items():
        cpu, wall = (median(times[kind] for times in rounds[1:]) for kind in ("cpu", "wall"))
        print(
            f"{name:16s} {cpu:7.2f} s CPU, {wall:7.2f} s wall (first {rounds[0]['wall']:.2f}), "
            f"{rounds[-1]['peak_gib']:.2f} GiB: {theirs['cpu'] / cpu:5.1f}x CPU, {theirs['wall'] / wall:5.1f}x wall"
        )


def main() -> None:
    """Race at every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        name, size = arguments.serve.rsplit(" ", 1)
        photo, weights = arguments.photo.resolve(), arguments.weights and arguments.weights.resolve()
        if name == RELEASED:
            serve(their_painting(arguments.reference.resolve(), photo, int(size)))
        else:
            serve(our_painting(photo, int(size), OURS[name], weights))
        return
    for size in arguments.sizes:
        names = [f"{name} {size}" for name in (RELEASED, *OURS)]
        found = race(__spec__.name, names, arguments.rounds)
        report(size, {name.rsplit(" ", 1)[0]: rounds for name, rounds in found.items()})


if __name__ == "__main__":
    main()
