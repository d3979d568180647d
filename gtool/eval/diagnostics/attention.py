"""How far the attention of a generator's components finds objects, with four baselines."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool import console
from gtool.errors import RecipeError
from gtool.eval.sheets import save_sheet, sheet_path
from gtool.io.attention_pictures import score_sheet
from gtool.metrics.attention import layer_table, picked_table, score_attention
from gtool.metrics.partitions import grid_cells, kmeans_cells
from gtool.metrics.segmenter import PROTOCOL as SEGMENTER
from gtool.metrics.segmenter import find_objects, require_scenes
from gtool.models import registry
from gtool.models.generate import batches, classes_in_turn, latents, load_model
from gtool.nn.ranges import to_uint8
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator

NUM_IMAGES = 1000  # or as many as the budget holds
BUDGET = 1.5e9  # bytes of maps: of the trained model, the untrained one, and with other local latents
ROWS = 8  # images on the sheet
OTHER = "z-other"  # stream of the local latents that are put in the place of an image's own


def score(
    path: Path, compute: Compute, *, num: int | None = None, seed: int = 0, batch_size: int = 32
) -> dict[str, Any]:
    """Score the attention of weights, write the sheet and return the record.

    RecipeError for a model without attention, or of other images than the built-in scenes; DataError where the images
    have no objects, as before any training.
    """
    model = load_model(path, compute=compute)
    generator, meta = model.network, model.meta
    if meta["config"].get("attention", "none") == "none":
        raise RecipeError(
            f"{path}: --attention: this {meta['model']} has no attention between pixels and components"
        )
    require_scenes(meta, path, "--attention")
    count = _count(generator, meta, num)
    images, maps = attend(generator, count, seed, compute, batch_size)
    _, changed = attend(generator, count, seed, compute, batch_size, other_locals=True)
    _, untrained = attend(_untrained(meta, compute), count, seed, compute, batch_size)
    pictures = images.numpy()
    objects = find_objects(pictures)
    record = score_attention(pictures, objects, maps, untrained=untrained, changed=changed, seed=seed)
    record |= {"masks": SEGMENTER, "seed": seed}
    best = record["picked"]["ari"]["attention"]
    picture = score_sheet(
        pictures[:ROWS],
        objects[:ROWS],
        maps[best["layer"]][:ROWS, best["head"]].float().numpy(),
        clusters=kmeans_cells(pictures[:ROWS], record["num_components"], seed),
        cells=grid_cells(record["num_components"], pictures.shape[-1]),
        layer=f"{best['layer']} head {best['head']}",
        title=f"{path.parent.name}/{path.name}",
    )
    record["picture"] = str(save_sheet(picture, sheet_path(path, "attention")))
    return record


def _count(generator: Any, meta: dict[str, Any], num: int | None) -> int:
    """Return how many images there is room for, of those that are asked for."""
    # Layers are named by their side: `32b`; maps are kept in half precision.
    cells = sum(int(name[:-1]) ** 2 for name in generator.attention_layers)
    map_bytes = 2 * meta["config"]["synthesis"]["heads"] * (generator.z_shape[0] - 1) * cells
    most = max(ROWS, int(BUDGET / (3 * map_bytes)))
    if num is None:
        return min(NUM_IMAGES, most)
    if num > max(most, NUM_IMAGES):
        raise RecipeError(
            f"--num {num}: the attention maps of {most:,} images are as many as are kept at once"
        )
    return num


def _untrained(meta: dict[str, Any], compute: Compute) -> nn.Module:
    """Return the same network as it was before training."""
    config = registry.config_class(meta["model"]).model_validate(meta["config"])
    seed = meta.get("recipe", {}).get("train", {}).get("seed", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(seed, "init").initial_seed())
        generator: nn.Module = registry.network_module(meta["model"]).build(config)[0]
    return generator.to(compute.device).eval().requires_grad_(False)


def attend(
    generator: Any, count: int, seed: int, compute: Compute, batch_size: int, *, other_locals: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Generate images uint8 (n, 3, R, R) and the maps (n, heads, k, h, w) of every layer in half precision.

    other_locals: take the local latents of other images, and each image's own global one.
    """
    indices = torch.arange(count)

    def ws(rows: Tensor) -> Tensor:
        z = latents(generator, seed, indices[rows])
        if other_locals:
            z = torch.cat([latents(generator, seed, indices[rows], OTHER)[:, :-1], z[:, -1:]], dim=1)
        classes = classes_in_turn(generator, indices[rows])
        own = () if classes is None else (classes.to(compute.device),)
        return generator.broadcast(generator.mapping(z.to(compute.device), *own))

    images: list[Tensor] = []
    kept: dict[str, Tensor] = {}
    done = 0
    made = batches(generator, seed, indices, compute, batch_size=batch_size, given=ws, with_maps=True)
    with console.progress("attention") as update:
        for batch, maps in made:
            images.append(to_uint8(batch).cpu())
            for name, layer in zip(generator.attention_layers, maps, strict=True):
                if not done:
                    kept[name] = torch.empty(count, *layer.shape[1:], dtype=torch.float16)
                kept[name][done : done + len(batch)] = layer.cpu()
            done += len(batch)
            update(done, count)
    return torch.cat(images), kept


def print_tables(record: dict[str, Any], name: str) -> None:
    """Print the scores of every layer and what was picked."""
    heads, *rows = layer_table(record)
    images = f"{record['num_images']:,} images, {record['objects_per_image']:.1f} objects each"
    protocol = f"{record['protocol']}, masks {record['masks']}"
    console.table(heads, rows, f"{name}: attention against the objects of {images}; {protocol}")
    heads, *rows = picked_table(record)
    console.table(heads, rows, "layer picked on one half of the images, scored on the other")
    console.result(record["picture"])
