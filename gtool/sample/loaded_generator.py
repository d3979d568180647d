"""A loaded generator as the verbs of sampling use it: its images, its text, and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import RecipeError
from gtool.sample.options import Job, kimg_of, parse_components, parse_layers

if TYPE_CHECKING:
    from torch import Tensor

    from gtool.models.generate import WsOfRows
    from gtool.runtime.device import Compute
    from gtool.sample.latents import Components

MAX_PIXELS = 200_000_000  # of one picture
SHEET_BATCH = 32


@dataclass(frozen=True)
class Source:
    """A loaded generator and what is known of it."""

    job: Job
    generator: Any
    meta: dict[str, Any]
    compute: Compute

    @property
    def resolution(self) -> int:
        return int(self.meta["config"]["resolution"])

    @property
    def batch_size(self) -> int:
        """Keep the pixels of a batch about equal, since memory and time follow them; sheets show few images."""
        request = self.job.request
        most = 256 if request.kind in ("sample", "walk") else SHEET_BATCH
        return request.batch_size or max(4, min(most, 2**18 // self.resolution**2))

    @property
    def count(self) -> int:
        """Local components; the global one comes after them."""
        return int(self.generator.z_shape[0]) - 1

    @cached_property
    def components(self) -> Components:
        """What images are made of; for generators with a mapping."""
        from gtool.sample.latents import Components

        request = self.job.request
        return Components(self.generator, self.compute, request.seed, request.psi)

    def text(self, numbers: str, **more: str) -> dict[str, str]:
        """Text chunks that say how a picture was made, and can be made again."""
        psi = {"psi": f"{self.job.request.psi:g}"} if hasattr(self.generator, "mapping") else {}
        return self.job.text(self.meta, numbers, **(psi | more))

    def save_sheet(self, picture: Any, **more: str) -> Path:
        """Write a picture where the job wants it, saying how it was made."""
        from gtool.io.picture import save_png

        save_png(self.job.picture, picture, self.text(self.job.numbers_as_text, **more))
        return self.job.picture

    def title(self, what: str) -> str:
        """Return the headline of a sheet: what it shows, and the truncation where there is any."""
        psi = self.job.request.psi
        return what if psi == 1 else f"{what}, psi {psi:g}"

    def images(
        self, indices: Tensor, *, z: Tensor | None = None, ws: WsOfRows | None = None
    ) -> Iterator[Any]:
        """Yield uint8 arrays (b, 3, R, R), with progress; truncated where neither z nor ws is given."""
        from gtool.models.generate import generate

        request = self.job.request
        if z is None and ws is None and request.psi != 1:
            ws = self.components.plain(indices)
        made = generate(
            self.generator, request.seed, indices, self.compute, batch_size=self.batch_size, z=z, ws=ws
        )
        total, done = len(indices), 0
        with console.progress("sampling") as update:
            for batch in made:
                done += len(batch)
                update(done, total, f"{done:,} of {total:,} images")
                yield batch.numpy()

    def all_images(self, indices: Tensor, ws: WsOfRows | None = None) -> Any:
        """Return uint8 (n, 3, R, R) at once; for pictures, which are held whole anyway.

        Raises:
            RecipeError: more than a picture can hold.
        """
        import numpy as np

        self.refuse_too_many(len(indices))
        return np.concatenate(list(self.images(indices, ws=ws)))

    def refuse_too_many(self, count: int) -> None:
        """Refuse a picture of so many images that nobody could open it.

        Raises:
            RecipeError: it has more than MAX_PIXELS.
        """
        if count * (self.resolution * (self.job.request.scale or 1)) ** 2 > MAX_PIXELS:
            raise RecipeError(
                f"{count:,} images at {self.resolution} px are too many for one picture; "
                "ask for fewer, or write separate files with -o FOLDER/"
            )

    def maps(self, indices: Tensor) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Yield each image uint8 (3, R, R) with layer -> attention (heads, k, h, w)."""
        from gtool.models.generate import batches
        from gtool.nn.ranges import to_uint8

        names = self.generator.attention_layers
        made = batches(
            self.generator,
            self.job.request.seed,
            indices,
            self.compute,
            batch_size=self.batch_size,
            ws=self.components.plain(indices),
            with_maps=True,
        )
        for images, maps in made:
            pictures, arrays = to_uint8(images).cpu().numpy(), [own.float().cpu().numpy() for own in maps]
            for place, picture in enumerate(pictures):
                yield picture, dict(zip(names, (own[place] for own in arrays), strict=True))


def load(job: Job) -> Source:
    """Load the generator that a job is about.

    Raises:
        GToolError: damaged weights, or a device that is not there.
        RecipeError: the model lacks what was asked for.
    """
    from gtool.models.generate import load_generator
    from gtool.runtime.device import make_compute

    compute = make_compute(job.request.device, job.request.precision)
    generator, meta = load_generator(job.weights, compute)
    source = Source(job, generator, meta, compute)
    _refuse_lacking(source)
    trained = f"from {meta['source']}" if "source" in meta else f"after {kimg_of(meta)} kimg"
    console.notice(
        f"{job.weights}: {meta['model']} at {source.resolution} px, {trained}; "
        f"{compute.describe()}, {compute.precision}"
    )
    return source


def _refuse_lacking(source: Source) -> None:
    """Refuse what this model cannot do, by the flag that asks for it."""
    request, generator, path = source.job.request, source.generator, source.job.weights
    model = source.meta["model"]
    flags = {
        "--psi": request.psi != 1,
        "--psi-sweep": request.kind == "psi",
        "--mix": request.kind == "mix",
        "--components": request.components is not None,
        "--space": request.space == "w",
    }
    asked = [flag for flag, is_asked in flags.items() if is_asked]
    if asked and not hasattr(generator, "mapping"):
        raise RecipeError(f"{asked[0]}: {path}: {model} has no latent components and no mapping of them to w")
    if request.components is not None:
        parse_components(request.components, source.count)
    if request.layers is not None:
        parse_layers(request.layers, generator.num_ws)
    if request.kind == "attention" and not getattr(generator, "attention_layers", ()):
        why = "attention = none" if hasattr(generator, "mapping") else model
        raise RecipeError(f"--attention: {path}: {why} has no attention to latent components")
    if request.kind == "noise" and not generator.noise_shapes:
        raise RecipeError(
            f"--noise-variation: {path}: this model has no noise inputs, so an image has no variations"
        )
