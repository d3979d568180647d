"""Files of the released priors -> our names and the config that their shapes imply.

Read for CompVis/taming-transformers at its last commit (Nov 2022), taming/models/cond_transformer.py,
Net2NetTransformer: one Lightning file holds the transformer behind `transformer.`, the tokenizer behind
`first_stage_model.` and, where conditions are pictures, the tokenizer of these behind `cond_stage_model.`. Files are
read as data (gtool/pickles.py).

Not in the tensors, and taken from the released configs: the number of heads, which the size of a network tells; that
the network of 48 layers and width 1536 is conditioned on ImageNet's classes, and that others without tokens of a
condition know none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.models.prior.config import PriorConfig, PriorPipelineConfig
from gtool.models.prior.orders import cells_in_order
from gtool.models.vqgan import released as vqgan_import
from gtool.models.vqgan.config import VQGANConfig

Tensors = dict[str, Tensor]

PRIOR, TOKENIZER, CONDITION = "transformer.", "first_stage_model.", "cond_stage_model."
PERMUTER = "permuter.forward_shuffle_idx"
# (layers, width) -> heads, of the released networks and of the configs that come with the code.
HEADS = {(24, 1024): 16, (24, 1664): 16, (48, 1536): 24, (40, 1408): 16, (36, 1536): 16}
IMAGENET = (48, 1536)  # the one released network that is conditioned on classes
IMAGENET_CLASSES = 1000
ORDERS = ("raster", "subsample", "z-curve", "spiral-out", "spiral-in", "alternate", "random")
OUTSIDE = {"tok_emb.weight": "codes.weight", "head.weight": "head.weight"}
IN_BLOCK = {
    "ln1": "norm1",
    "ln2": "norm2",
    "attn.proj": "attention.out",
    "mlp.0": "mlp.expand",
    "mlp.2": "mlp.contract",
}
QKV = ("query", "key", "value")
# Condition tokenizers by their input: one channel is depth, three a picture, and more are labels.
DEPTH, PICTURE = 1, 3


class Released(NamedTuple):
    """What a file of a released prior holds: configs, and tensors by our names."""

    prior: tuple[PriorConfig, Tensors]
    tokenizer: tuple[VQGANConfig, Tensors]
    condition_tokenizer: tuple[VQGANConfig, Tensors] | None


def read_file(path: Path) -> tuple[str, Any, Tensors]:
    """Return what of a file was read, and the rest as `rename_released`.

    Raises:
        CheckpointError: unreadable, no released prior, or one that ours cannot be.
    """
    chosen, tensors = vqgan_import.read_state(path)
    try:
        return chosen, *rename_released(tensors)
    except CheckpointError as bad:
        raise CheckpointError(f"{path}: {bad}") from None


def rename_released(tensors: Mapping[str, Tensor]) -> tuple[PriorPipelineConfig, Tensors]:
    """Return the config of a released prior with its tokenizers, and the tensors of all by our names.

    Raises:
        CheckpointError: as `split_released`.
    """
    found = split_released(tensors)
    parts = {name: part for name, part in found._asdict().items() if part is not None}
    described = {name: config.model_dump() for name, (config, _) in parts.items()}
    try:
        config = PriorPipelineConfig.model_validate(described | {"resolution": found.tokenizer[0].resolution})
    except ValueError as bad:
        raise CheckpointError(f"no released prior: {_reason(bad)}") from None
    return config, {f"{name}.{key}": value for name, (_, own) in parts.items() for key, value in own.items()}


def split_released(
    tensors: Mapping[str, Tensor], *, heads: int | None = None, classes: int | None = None
) -> Released:
    """Return the networks of a released file.

    Args:
        tensors: all of the file.
        heads: of the transformer's attention; None for those of the released network of this size.
        classes: that it is conditioned on, 0 for none; None as the released network of this size.

    Raises:
        CheckpointError: not the tensors of a released prior, or of one that ours cannot be.
    """
    if f"{PRIOR}tok_emb.weight" not in tensors:
        kind = "a tokenizer's" if vqgan_import.is_tokenizer(tensors) else "no released prior's"
        raise CheckpointError(f"{kind} file: `{PRIOR}tok_emb.weight` is missing")
    tokenizer = vqgan_import.tokenizer_from(tensors, TOKENIZER)
    of_condition = any(name.startswith(CONDITION) for name in tensors)
    condition_tokenizer = vqgan_import.tokenizer_from(tensors, CONDITION) if of_condition else None
    own = {name.removeprefix(PRIOR): value for name, value in tensors.items() if name.startswith(PRIOR)}
    try:
        layers, width = _count_blocks(own), own["tok_emb.weight"].shape[1]
        values: dict[str, Any] = {
            **{"layers": layers, "width": width, "shared_embedding": True},
            "heads": heads or _heads(layers, width),
            "codebook_size": own["tok_emb.weight"].shape[0],
            "grid": (tokenizer[0].codes_side, tokenizer[0].codes_side),
            "positions": own["pos_emb"].shape[1],
            "unmasked_prefix": _unmasked(own),
        }
        values["order"] = _order(tensors, (tokenizer[0].codes_side, tokenizer[0].codes_side))
        values |= _condition(values, None if condition_tokenizer is None else condition_tokenizer[0], classes)
        renamed = _rename(own, layers)
        config = PriorConfig.model_validate(values)
    except KeyError as missing:
        raise CheckpointError(f"no released prior: {missing} is missing") from None
    except (ValueError, IndexError, RuntimeError) as bad:
        raise CheckpointError(f"no released prior: {_reason(bad)}") from None
    if config.codebook_size != tokenizer[0].codebook_size:
        raise CheckpointError(
            f"the prior knows {config.codebook_size} codes and its tokenizer {tokenizer[0].codebook_size}"
        )
    return Released((config, renamed), tokenizer, condition_tokenizer)


def _reason(bad: Exception) -> str:
    lines = [line.strip() for line in str(bad)[:1000].splitlines() if "For further information" not in line]
    return re.sub(r"\s*\[type=.*", "", lines[-1]).removeprefix("Value error, ") if lines else "damaged"


def _count_blocks(own: Tensors) -> int:
    found = {int(match[1]) for name in own if (match := re.match(r"blocks\.(\d{1,3})\.", name))}
    if found != set(range(len(found))) or not found:
        raise ValueError("its blocks are not numbered from 0 on")
    return len(found)


def _heads(layers: int, width: int) -> int:
    if (layers, width) not in HEADS:
        raise ValueError(
            f"{layers} layers of width {width} are none of the released sizes, whose number of heads is known"
        )
    return HEADS[(layers, width)]


def _unmasked(own: Tensors) -> int:
    """Return how many first tokens all see each other: what the first of them sees, where that is more than itself."""
    mask = own.get("blocks.0.attn.mask")
    seen = 1 if mask is None else int(mask.reshape(mask.shape[-2:])[0].sum())
    return seen if seen > 1 else 0


def _order(tensors: Mapping[str, Tensor], grid: tuple[int, int]) -> str:
    if PERMUTER not in tensors:
        return "raster"
    cells = tensors[PERMUTER].flatten().tolist()
    found = [order for order in ORDERS if cells_in_order(order, *grid) == cells]
    if not found:
        raise ValueError(f"`{PERMUTER}` is none of the released orders")
    return found[0]


def _condition(values: dict[str, Any], tokenizer: VQGANConfig | None, classes: int | None) -> dict[str, Any]:
    length = values["grid"][0] * values["grid"][1]
    if tokenizer is None:
        if values["positions"] >= 2 * length - 1:
            raise ValueError(
                "conditioned on something that has no tokenizer, as coordinates, which this gtool does not build"
            )
        if classes is None:
            classes = IMAGENET_CLASSES if (values["layers"], values["width"]) == IMAGENET else 0
        return {"condition": "class", "condition_size": classes} if classes else {"condition": "none"}
    if tokenizer.image_channels == PICTURE:
        raise ValueError("conditioned on pictures, which this gtool does not build")
    kind = "depth" if tokenizer.image_channels == DEPTH else "segmentation"
    return {"condition": kind, "condition_size": tokenizer.codebook_size}


def _rename(own: Tensors, layers: int) -> Tensors:
    """Return the transformer's tensors by our names; the masks, which are made again, are left."""
    renamed = {ours: own[theirs] for theirs, ours in OUTSIDE.items()}
    renamed["positions"] = own["pos_emb"].flatten(0, 1)
    for kind in ("weight", "bias"):
        renamed[f"norm.{kind}"] = own[f"ln_f.{kind}"]
        for layer in range(layers):
            block = f"blocks.{layer}"
            renamed[f"{block}.attention.qkv.{kind}"] = torch.cat(
                [own[f"{block}.attn.{part}.{kind}"] for part in QKV]
            )
            for theirs, ours in IN_BLOCK.items():
                renamed[f"{block}.{ours}.{kind}"] = own[f"{block}.{theirs}.{kind}"]
    return renamed


def check(network: nn.Module) -> None:
    """Predict a picture's codes from zeros, and look at the tokenizer.

    Raises:
        CheckpointError: values that are not finite.
    """
    prior: Any = network.get_submodule("prior")
    config = prior.config
    with torch.inference_mode():
        zeros = torch.zeros(1, config.condition_length, dtype=torch.int64)
        logits = prior.eval()(zeros, torch.zeros(1, *config.grid, dtype=torch.int64))
    if not bool(logits.isfinite().all()):
        raise CheckpointError("the prior predicts values that are not finite; nothing was written")
    vqgan_import.check(network.get_submodule("tokenizer"))
