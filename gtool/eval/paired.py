"""`gtool eval A B --paired`: how near the pictures of one folder are to those of the same names in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import DataError, RecipeError, printable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gtool.data.dataset import ImageDataset
    from gtool.eval.options import Request
    from gtool.runtime.device import Compute

SHOWN = 8  # pairs on the sheet, the worst
NAMED = 3  # names in a message
PICTURE = "paired.png"


@dataclass(frozen=True)
class Pairs:
    """Two sets of images and which of one belongs to which of the other."""

    made: ImageDataset
    real: ImageDataset
    partners: list[tuple[str, int, int]]  # name, place in `made`, place in `real`
    resolution: int | None
    crop: str = "center"

    @property
    def sides(self) -> dict[str, ImageDataset]:
        """The two sets by their names in a record."""
        return {"fake": self.made, "real": self.real}

    def places(self, side: str) -> np.ndarray:
        """Return where the images of a side lie (n,), in the order of the pairs."""
        import numpy as np

        return np.array([made if side == "fake" else real for _, made, real in self.partners])

    def read(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the pictures uint8 (3, H, W) of a pair; DataError names all of its side that are damaged."""
        from gtool.eval.image_checks import find_damaged
        from gtool.io.image import UnreadableImage

        _, made, real = self.partners[number]
        try:
            return self._read(self.made, made), self._read(self.real, real)
        except UnreadableImage:
            for side, source in self.sides.items():
                find_damaged(source, self.places(side), 0, {})
            raise

    def _read(self, source: ImageDataset, place: int) -> Tensor:
        import numpy as np
        import torch

        if self.resolution is None:
            return torch.from_numpy(np.array(source.read(place).transpose(2, 0, 1), order="C"))
        (square,) = source.read_squares([place], self.resolution, self.crop)
        if isinstance(square, Exception):
            raise square
        return torch.from_numpy(np.ascontiguousarray(square))


def refuse_unpaired(request: Request, folder: str | None) -> None:
    """Refuse what `--paired` cannot do before anything is opened.

    Raises:
        RecipeError: no two folders, metrics beside it, one of the two files of LPIPS.
    """
    files = request.lpips_vgg, request.lpips_heads
    if not request.paired:
        if any(files):
            raise RecipeError("--lpips-vgg and --lpips-heads belong to --paired")
        return
    if folder is None or request.reference is None:
        raise RecipeError("--paired compares two folders: gtool eval PICTURES ORIGINALS --paired")
    if request.metrics or request.looks:
        raise RecipeError("--paired compares picture by picture and goes with no other metric; give it alone")
    if any(files) and not all(files):
        raise RecipeError("LPIPS needs both of its files: --lpips-vgg FILE and --lpips-heads FILE")


def score(folder: str, request: Request, compute: Compute) -> dict[str, Any]:
    """Return what the record says of two folders: `reference`, `images`, `metrics`, and where the sheet is.

    Raises:
        DataError: pictures without partner, of other size than their partner, or more that cannot be read than
            tolerated; other files, and `strict`.
        CheckpointError: files of LPIPS that cannot be used.
    """
    from gtool.io.image import quiet_pillow
    from gtool.metrics.paired import PROTOCOL, Paired

    lpips, weights = _load_lpips(request, compute)
    pairs, about = _look(find_pairs(folder, str(request.reference), request.resolution), folder, request)
    content = about.pop("content")
    found = Paired(lpips)
    count = len(pairs.partners)
    with console.progress("comparing pairs") as update, quiet_pillow():
        for number, (name, _, _) in enumerate(pairs.partners):
            found.add(*pairs.read(number), name)
            update(number + 1, count, f"{number + 1:,} of {count:,} pairs")
    real = pairs.real
    size = f"/{request.resolution}px" if request.resolution else ""
    size += "@fit" if size and request.fit else ""
    common = {"num_fake": count, "num_real": count, "dtype": "fp32", "reference": content}
    metrics = {
        name: {
            "value": value,
            "protocol": f"{PROTOCOL}/{name}{size}/n{count}/ref-{printable(Path(real.name).name)}",
            **common,
            "weights": weights if name == "lpips" else None,
            "seed": request.seed,
        }
        for name, value in found.scores().items()
    }
    picture = _write_sheet(pairs, found)
    console.notice(f"the pairs farthest apart: {picture}")
    return {
        "reference": {
            "name": real.name,
            "fingerprint": content,
            "resolution": request.resolution or 0,
        },
        **about,
        "metrics": metrics,
        "picture": str(picture),
    }


def find_pairs(made: str, real: str, resolution: int | None) -> Pairs:
    """Pair the images of two folders by their relative names without suffix.

    Raises:
        DataError: one has no partner, or two have one name.
    """
    from gtool.data.open import open_dataset

    sources = [open_dataset(spec, split="train", resolution=resolution, arrays=True) for spec in (made, real)]
    ours, theirs = (_places(source) for source in sources)
    for names, others, where in ((ours, theirs, real), (theirs, ours, made)):
        if alone := sorted(names.keys() - others.keys()):
            some = ", ".join(alone[:NAMED]) + (", ..." if len(alone) > NAMED else "")
            raise DataError(
                f"{where}: no partner for {len(alone):,} of {len(names):,} pictures ({some}); "
                "partners have one name, whatever their suffix"
            )
    partners = [(name, ours[name], theirs[name]) for name in sorted(ours)]
    return Pairs(sources[0], sources[1], partners, resolution)


def _look(pairs: Pairs, folder: str, request: Request) -> tuple[Pairs, dict[str, Any]]:
    """Look at all pictures; return the pairs that can be read, and what the record says of both folders.

    Sizes are not looked at here: partners of one size need not be square.
    """
    from gtool.eval.image_checks import find_damaged, look_at, look_beside
    from gtool.eval.run import named_images

    specs = {"fake": folder, "real": str(request.reference)}
    wanted = {
        side: replace(named_images(request, spec, "train", None), crop="fit") for side, spec in specs.items()
    }
    makeups = {side: look_beside(source, wanted[side]) for side, source in pairs.sides.items()}
    damaged: dict[str, list[int]] = {side: [] for side in specs}
    if request.skip_bad:
        damaged = {
            side: find_damaged(source, pairs.places(side), request.skip_bad, makeups[side])
            for side, source in pairs.sides.items()
        }
    kept = [one for one in pairs.partners if one[1] not in damaged["fake"] and one[2] not in damaged["real"]]
    names = {name for name, _, _ in kept}
    left_out = [name for name, _, _ in pairs.partners if name not in names]
    if left_out:
        some = ", ".join(left_out[:NAMED]) + (", ..." if len(left_out) > NAMED else "")
        console.warning(f"{len(left_out):,} of {len(pairs.partners):,} pairs are left out: {some}")
    if not kept:
        raise DataError(f"{pairs.made.name}: no pair is left to compare")
    pairs = replace(pairs, partners=kept, crop="fit" if request.fit else "center")
    contents = {
        side: look_at(source, pairs.places(side), wanted[side], makeups[side])
        for side, source in pairs.sides.items()
    }
    about: dict[str, Any] = {"content": contents["real"], "images": makeups}
    return pairs, about | ({"pairs_left_out": left_out} if left_out else {})


def _places(source: ImageDataset) -> dict[str, int]:
    places: dict[str, int] = {}
    for index in range(len(source)):
        name = str(PurePosixPath(source.name_of(index)).with_suffix(""))
        if name in places:
            raise DataError(f"{source.name}: two pictures are called {name}; which one is the partner?")
        places[name] = index
    return places


def _load_lpips(
    request: Request, compute: Compute
) -> tuple[Callable[[Tensor, Tensor], Tensor] | None, str | None]:
    """Return LPIPS and the digests of its two files, where they are given."""
    if request.lpips_vgg is None or request.lpips_heads is None:
        return None, None
    from gtool.errors import CheckpointError
    from gtool.losses.perceptual import LPIPS
    from gtool.metrics.features.weights import digest_of

    files = request.lpips_vgg, request.lpips_heads
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
    network = LPIPS.from_files(*files).to(compute.device)
    return (
        lambda one, other: network(one.to(compute.device), other.to(compute.device)),
        "+".join(digest_of(path) for path in files),
    )


def _write_sheet(pairs: Pairs, found: Any) -> Path:
    """Draw the worst pairs beside each other and where they differ, into the current folder."""
    import numpy as np

    from gtool import __version__
    from gtool.io.pictures import Column, Row, fit, heat, image_cell, save_png, sheet

    places = found.worst(SHOWN)
    drawn = [[_square(image.numpy()) for image in pairs.read(place)] for place in places]
    changes = [np.abs(made.astype(np.float32) - real).mean(axis=0) for made, real in drawn]  # (S, S) each
    largest = max(1.0, *(float(change.max()) for change in changes))
    cell = image_cell(max(made.shape[-1] for made, _ in drawn), len(drawn))
    rows = [
        Row("picture", [fit(made, cell) for made, _ in drawn]),
        Row("original", [fit(real, cell) for _, real in drawn]),
        Row("difference", [fit(heat(change, largest), cell) for change in changes]),
    ]
    columns = [Column(f"{found.values['psnr'][place]:.1f} dB") for place in places]
    title = f"{pairs.made.name}: the {len(places)} farthest from their originals"
    path = Path(PICTURE)
    names = ", ".join(pairs.partners[place][0] for place in places)
    picture = sheet(rows, columns, cell, title, f"black 0, white {largest:.0f} of 255")
    save_png(path, picture, {"Software": f"gtool {__version__}", "images": names})
    return path


def _square(image: Any) -> Any:
    """Return the image (3, H, W) on a white square of its longer side."""
    import numpy as np

    _, H, W = image.shape
    side = max(H, W)
    square = np.full((3, side, side), 255, np.uint8)
    top, left = (side - H) // 2, (side - W) // 2
    square[:, top : top + H, left : left + W] = image
    return square
