"""What a `gtool paint` command line can say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtool import flags
from gtool.flags import OUTPUT, argument, option
from gtool.strokes.settings import BRUSHES

EXAMPLES = """Examples:

`gtool paint photo.jpg` : photo-painted.png beside it

`gtool paint` : the built-in picture, nothing needed

`gtool paint holiday/ -o painted/ --max-strokes 2000` : all photos of a folder and of those in it

`gtool paint photo.jpg -o portrait.webp --brush dry --canvas-color linen --detail 0.7`

`gtool paint photo.jpg --scale 4` : a large print of a small photo

`gtool paint photo.jpg --colors 12` : few flat paints; `--palette paints.toml` : these and no others

`gtool paint photo.jpg --style watercolour` ; `--min-stroke 8 --max-stroke 120` : lengths in pixels

`gtool paint photo.jpg --colors 6 --svg plot.svg --plotter` : centre lines, a layer a paint

`gtool paint photo.jpg --animate timelapse.webp --svg photo.svg --strokes photo.json`

`gtool paint holiday.mp4 -o painted.mp4` : every frame, with its sound; strokes follow what moves

`gtool paint --from-strokes photo.json --max-side 8192` : the same strokes, larger"""

STYLES: dict[str, dict[str, Any]] = {
    "oil": {"brush": "flat", "detail": 0.5, "canvas_color": "umber"},
    "watercolour": {"brush": "wash", "opacity": 0.5, "detail": 0.4, "canvas_color": "white"},
    "marker": {"brush": "marker", "opacity": 0.85, "detail": 0.35, "canvas_color": "white"},
    "pastel": {"brush": "chalk", "opacity": 0.9, "detail": 0.5, "canvas_color": "kraft"},
}
STROKES, CANVAS, VIDEO = "Strokes", "Canvas", "Video"
DEFAULT_FPS, DEFAULT_FRAMES = 24.0, 96  # of a timelapse


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """Turn photos and videos into paintings, stroke by stroke."""

    photos: tuple[str, ...] = argument(
        "Photos, videos, folders (their photos), quoted patterns; the built-in picture when left out.",
        default=(),
    )
    brush: str | None = option(
        STROKES, f"`{'`, `'.join(BRUSHES)}`, or a folder with a picture of a brush mark; default flat."
    )
    detail: float | None = option(
        STROKES, "From 0 (broad strokes) to 1 (fine strokes); default 0.5.", min=0, max=1
    )
    style: str | None = option(
        STROKES,
        f"Brush, opacity, detail and canvas together: `{'`, `'.join(STYLES)}`; other options change parts of it.",
    )
    max_strokes: int | None = option(
        STROKES, "Maximum number of strokes; up to 1,000 are refined together.", min=1
    )
    min_stroke: int | None = option(
        STROKES, "Length of the shortest strokes, in pixels of the painting.", min=1
    )
    max_stroke: int | None = option(
        STROKES, "Length of the longest strokes, in pixels of the painting.", min=2
    )
    method: str | None = option(
        STROKES,
        "`predictor` (a trained network), or without a network `greedy` or `random`; default predictor.",
    )
    select: str | None = option(
        STROKES,
        "How the predictor's strokes are chosen: by the error they remove (`gain`) or by its own `decision`, which is "
        "faster; default gain.",
    )
    weights: str | None = option(
        STROKES, "A run, a weights file or a hub id; default: the weights shipped with gtool."
    )
    keep_all: bool = option(STROKES, "Also keep strokes that do not reduce the error.", default=False)
    seed: int | None = option(STROKES, "Random seed; default 0.")
    colors: int | None = option(
        STROKES, "Paint a photo with so many colours, chosen for it.", "--colors", min=2, max=256
    )
    palette: Path | None = option(
        STROKES,
        'Paint a photo with the colours of a TOML file: colors = ["#8a3b2c", "linen"].',
        metavar="FILE",
    )
    opacity: float | None = option(CANVAS, "Opacity of the paint; default 1.", min=0.05, max=1)
    canvas_color: str | None = option(
        CANVAS,
        "Color under the paint: `white`, `black`, `grey`, `linen`, `kraft`, `cream`, `umber`, `slate` or `#rrggbb`, "
        "which also fills transparent parts; default auto (mean of the photo, transparent parts stay so).",
    )
    max_side: int | None = option(
        CANVAS,
        "Longer side in pixels: of photos and videos the maximum (up to 8192), they are never enlarged; of stroke "
        "files exact; default 2048.",
        min=1,
        max=32768,
    )
    scale: int | None = option(
        CANVAS, "Make the painting so many times as large as the photo that is painted.", min=1, max=16
    )
    animate: str | None = option(
        VIDEO, "Also write a timelapse of the painting: FILE.webp, .gif or .mp4, or FOLDER/."
    )
    fps: float | None = option(
        VIDEO,
        "Frames per second: of the timelapse, default 24; of a painted video, default that of the source.",
        min=0.1,
        max=100,
    )
    frames: int | None = option(
        VIDEO, "Frames of the timelapse, no more than there are strokes; default 96.", min=2, max=10_000
    )
    out: str | None = option(
        OUTPUT,
        "FILE.png, .jpg or .webp, for videos .mp4 or .webm, or FOLDER/; default beside the photo.",
        "--out",
        "-o",
    )
    svg: str | None = option(OUTPUT, "Also write the strokes as vectors: FILE.svg or FOLDER/.")
    plotter: bool = option(
        OUTPUT,
        "Write --svg as centre lines for a plotter, a layer a paint, short ways between; with --colors or --palette.",
        default=False,
    )
    strokes: str | None = option(OUTPUT, "Also write the strokes to render again: FILE.json or FOLDER/.")
    from_strokes: Path | None = option(
        OUTPUT, "Render a stroke file written by --strokes, at --max-side; takes no photo."
    )
    force: bool = option(OUTPUT, "Replace files that exist.", default=False)
    as_json: bool = flags.as_json()
    device: str = flags.device()
    precision: str = flags.precision()

    @property
    def outputs(self) -> dict[str, str]:
        """The files and folders that were named, by their flags."""
        flags = {"-o": self.out, "--svg": self.svg, "--strokes": self.strokes, "--animate": self.animate}
        return {flag: text for flag, text in flags.items() if text is not None}

    @property
    def timing(self) -> tuple[int, float]:
        """The number of frames of a timelapse, and frames a second."""
        return self.frames or DEFAULT_FRAMES, self.fps or DEFAULT_FPS
