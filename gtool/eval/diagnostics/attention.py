"""`gtool eval --attention`: how far a generator's components find objects, with baselines, as a table and a sheet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import RecipeError
from gtool.models import registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gtool.eval.options import Request
    from gtool.runtime.device import Compute

NUM_IMAGES = 1000  # or as many as the budget holds
BUDGET = 1.5e9  # bytes of maps: of the trained model, the untrained one, and with other local latents
KNOWN = "scenes"  # the data set whose objects the segmenter of the package finds
ROWS = 8  # pictures on the sheet
OTHER = "z-other"  # stream of the local latents that are put in the place of an image's own
Maps = dict[str, "Tensor"]


@dataclass(frozen=True)
class Subject:
    """A generator whose attention is scored."""

    path: Path
    generator: nn.Module
    meta: dict[str, Any]
    compute: Compute

    @property
    def resolution(self) -> int:
        return int(self.meta["config"]["resolution"])


def _require_objects(path: Path, meta: dict[str, Any]) -> None:
    """Refuse a generator without attention, and one whose pictures have objects that nobody here can find."""
    if meta["config"].get("attention", "none") == "none":
        raise RecipeError(
            f"{path}: --attention: this {meta['model']} has no attention between pixels and components"
        )
    dataset = meta.get("recipe", {}).get("data", {}).get("dataset")
    if dataset != KNOWN:
        raise RecipeError(
            f"{path}: --attention: the masks come from a segmenter that knows the built-in scenes alone, and this "
            f"model was trained on {dataset or 'something that its file does not name'}"
        )


def score(path: Path, request: Request, compute: Compute) -> dict[str, Any]:
    """Score the attention of weights, print tables and write the sheet; returns the record.

    Raises:
        RecipeError: no attention, or trained on other pictures than the built-in scenes.
        DataError: no objects in the images, as before any training.
    """
    from gtool.metrics.attention import score_attention
    from gtool.metrics.segmenter import PROTOCOL as SEGMENTER
    from gtool.metrics.segmenter import find_objects
    from gtool.models.generate import load_model

    model = load_model(path, compute=compute)
    generator, meta = model.network, model.meta
    _require_objects(path, meta)
    subject = Subject(path, generator, meta, compute)
    count = _count(subject, request.num)
    with console.progress("attention") as update:
        look = partial(_look, subject, request, count, update)
        images, maps = look(generator, images=True)
        _, changed = look(generator, other_locals=True)
        _, untrained = look(_untrained(subject))
    objects = find_objects(images)
    record = score_attention(images, objects, maps, untrained=untrained, changed=changed, seed=request.seed)
    record |= {"masks": SEGMENTER, "seed": request.seed}
    record["picture"] = str(_write_sheet(subject, images, objects, maps, record))
    return record


def print_tables(record: dict[str, Any], name: str) -> None:
    """Print the scores of every layer and what was picked."""
    from gtool.metrics.attention import layer_table, picked_table

    heads, *rows = layer_table(record)
    pictures = f"{record['num_images']:,} images, {record['objects_per_image']:.1f} objects each"
    protocol = f"{record['protocol']}, masks {record['masks']}"
    console.table(heads, rows, f"{name}: attention against the objects of {pictures}; {protocol}")
    heads, *rows = picked_table(record)
    console.table(heads, rows, "layer picked on one half of the images, scored on the other")
    console.result(record["picture"])


def _count(subject: Subject, wanted: int | None) -> int:
    """How many images there is room for."""
    most = max(ROWS, int(BUDGET / (3 * _map_bytes(subject))))
    if wanted is None:
        return min(NUM_IMAGES, most)
    if wanted > max(most, NUM_IMAGES):
        raise RecipeError(
            f"--num {wanted}: the attention maps of {most:,} images are as many as are kept at once"
        )
    return wanted


def _map_bytes(subject: Subject) -> int:
    """Bytes of one image's maps in half precision."""
    generator: Any = subject.generator
    heads = subject.meta["config"]["synthesis"]["heads"]
    sides = [int(name[:-1]) for name in generator.attention_layers]
    return 2 * heads * (generator.z_shape[0] - 1) * sum(side**2 for side in sides)


def _untrained(subject: Subject) -> nn.Module:
    """The same network as it was before training."""
    import torch

    from gtool.runtime.torch_random import make_generator

    config = registry.config_class(subject.meta["model"]).model_validate(subject.meta["config"])
    seed = subject.meta.get("recipe", {}).get("train", {}).get("seed", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(seed, "init").initial_seed())
        generator = registry.networks(subject.meta["model"]).build(config)[0]
    made: nn.Module = generator.to(subject.compute.device).eval().requires_grad_(False)
    return made


def _look(
    subject: Subject,
    request: Request,
    count: int,
    update: Any,
    generator: Any,
    *,
    images: bool = False,
    other_locals: bool = False,
) -> tuple[Any, Maps]:
    """Generate images (uint8 (n, 3, R, R), empty unless wanted) and the maps of every layer in half precision."""
    import torch

    from gtool.models.generate import batches, latents
    from gtool.nn.ranges import to_uint8

    indices, seed = torch.arange(count), request.seed

    def ws(rows: Tensor) -> Tensor:
        z = latents(generator, seed, indices[rows])
        if other_locals:
            z = torch.cat([latents(generator, seed, indices[rows], OTHER)[:, :-1], z[:, -1:]], dim=1)
        made: Tensor = generator.broadcast(generator.mapping(z.to(subject.compute.device)))
        return made

    pictures: list[Tensor] = []
    kept: Maps = {}
    done, size = 0, request.batch_size
    made = batches(generator, seed, indices, subject.compute, batch_size=size, ws=ws, with_maps=True)
    for batch, maps in made:
        if images:
            pictures.append(to_uint8(batch).cpu())
        for name, layer in zip(generator.attention_layers, maps, strict=True):
            if not done:
                kept[name] = torch.empty(count, *layer.shape[1:], dtype=torch.float16)
            kept[name][done : done + len(batch)] = layer.cpu()
        done += len(batch)
        update(done, count, f"{done:,} of {count:,} images")
    return torch.cat(pictures).numpy() if images else None, kept


def _write_sheet(subject: Subject, images: Any, objects: Any, maps: Maps, record: dict[str, Any]) -> Path:
    from gtool import __version__
    from gtool.io.attention_pictures import score_sheet
    from gtool.io.pictures import save_png
    from gtool.metrics.partitions import grid_cells, kmeans_cells

    best = record["picked"]["ari"]["attention"]
    shown = images[:ROWS]
    picture = score_sheet(
        shown,
        objects[:ROWS],
        maps[best["layer"]][:ROWS, best["head"]].float().numpy(),
        clusters=kmeans_cells(shown, record["num_components"], record["seed"]),
        cells=grid_cells(record["num_components"], subject.resolution),
        layer=f"{best['layer']} head {best['head']}",
        title=f"{subject.path.parent.name}/{subject.path.name}",
    )
    run = subject.path.parent
    name = f"attention-{subject.path.stem.removeprefix('weights-')}.png"
    path = run / "samples" / name if (run / "recipe.toml").is_file() else Path(name)
    save_png(path, picture, {"Software": f"gtool {__version__}"})
    return path
