"""Files of the released priors -> our names and the config that their shapes imply.

Read for CompVis/taming-transformers at its last commit (Nov 2022), taming/models/cond_transformer.py,
Net2NetTransformer: one Lightning file holds the transformer behind `transformer.`, the tokenizer behind
`first_stage_model.` and, where conditions are pictures, the tokenizer of these behind `cond_stage_model.`. Files are
read as data (gtool/io/safe_pickle.py).

Not in the tensors, and taken from the released configs: the number of heads, which the size of a network tells; that
the network of 48 layers and width 1536 is conditioned on ImageNet's classes, and that others without tokens of a
condition know none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from gtool.config.recipe import first_reason
from gtool.errors import CheckpointError
from gtool.models.prior.config import Order, PriorConfig, PriorPipelineConfig
from gtool.models.prior.network import cells_in_order
from gtool.models.released_files import Tensors, numbers
from gtool.models.vqgan import released as vqgan_import
from gtool.models.vqgan.config import VQGANConfig

PRIOR, TOKENIZER, CONDITION = "transformer.", "first_stage_model.", "cond_stage_model."
PERMUTER = "permuter.forward_shuffle_idx"
# (layers, width) -> heads, of the released networks and of the configs that come with the code.
HEADS = {(24, 1024): 16, (24, 1664): 16, (48, 1536): 24, (40, 1408): 16, (36, 1536): 16}
IMAGENET, IMAGENET_CLASSES = (48, 1536), 1000  # the one released network that is conditioned on classes
IN_BLOCK = {
    "ln1": "norm1",
    "ln2": "norm2",
    "attn.proj": "attention.out",
    "mlp.0": "mlp.expand",
    "mlp.2": "mlp.contract",
}
# Condition tokenizers by their input: one channel is depth, three a picture, and more are labels.
DEPTH, PICTURE = 1, 3


def read_file(path: Path) -> tuple[str, Any, Tensors]:
    """Return what of a file was read, and the rest as `rename_released`; CheckpointError names the file."""
    chosen, tensors = vqgan_import.read_state(path)
    return chosen, *rename_released(tensors)


def rename_released(tensors: Mapping[str, Tensor]) -> tuple[PriorPipelineConfig, Tensors]:
    """Return the config of a released prior with its tokenizers, and the tensors of all by our names."""
    parts = split_released(tensors)
    described = {name: config.model_dump() for name, (config, _) in parts.items()}
    try:
        values = described | {"resolution": parts["tokenizer"][0].resolution}
        config = PriorPipelineConfig.model_validate(values)
    except ValueError as bad:
        raise CheckpointError(f"no released prior: {first_reason(bad)}") from None
    return config, {f"{name}.{key}": value for name, (_, own) in parts.items() for key, value in own.items()}


def split_released(
    tensors: Mapping[str, Tensor], *, heads: int | None = None, classes: int | None = None
) -> dict[str, tuple[Any, Tensors]]:
    """Return config and tensors, by our names, of `prior`, `tokenizer` and, where there is one, `condition_tokenizer`.

    heads, classes: None for those of the released network of this size; 0 classes for no condition.

    Raises:
        CheckpointError: not the tensors of a released prior, or of one that ours cannot be.
    """
    if f"{PRIOR}tok_emb.weight" not in tensors:
        kind = "a tokenizer's" if vqgan_import.is_of_this_model(tensors) else "no released prior's"
        raise CheckpointError(f"{kind} file: `{PRIOR}tok_emb.weight` is missing")
    tokenizer, condition = vqgan_import.tokenizer_from(tensors, TOKENIZER), None
    if any(name.startswith(CONDITION) for name in tensors):
        condition = vqgan_import.tokenizer_from(tensors, CONDITION)
    own = {name.removeprefix(PRIOR): value for name, value in tensors.items() if name.startswith(PRIOR)}
    try:
        layers, values = _describe(own, tokenizer[0].codes_side)
        if not heads and (layers, values["width"]) not in HEADS:
            raise ValueError(
                f"{layers} layers of width {values['width']} are none of the released sizes: heads unknown"
            )
        values["heads"] = heads or HEADS[layers, values["width"]]
        values["order"] = _order(tensors.get(PERMUTER), values["grid"])
        values |= _condition(values, None if condition is None else condition[0], classes)
        prior = PriorConfig.model_validate(values), _rename(own, layers)
    except KeyError as missing:
        raise CheckpointError(f"no released prior: {missing} is missing") from None
    except (ValueError, IndexError, RuntimeError) as bad:
        raise CheckpointError(f"no released prior: {first_reason(bad)}") from None
    known, codes = prior[0].codebook_size, tokenizer[0].codebook_size
    if known != codes:
        raise CheckpointError(f"the prior knows {known} codes and its tokenizer {codes}")
    parts = {"prior": prior, "tokenizer": tokenizer, "condition_tokenizer": condition}
    return {name: part for name, part in parts.items() if part is not None}


def _describe(own: Tensors, side: int) -> tuple[int, dict[str, Any]]:
    """Return the number of layers, and what shapes say of the transformer."""
    blocks = numbers(own, r"blocks\.(\d{1,3})\.")
    if blocks != set(range(len(blocks))) or not blocks:
        raise ValueError("its blocks are not numbered from 0 on")
    # How many first tokens all see each other: what the first of them sees, where that is more than itself.
    mask = own.get("blocks.0.attn.mask")
    seen = 1 if mask is None else int(mask.reshape(mask.shape[-2:])[0].sum())
    codes, width = own["tok_emb.weight"].shape
    values = {"layers": len(blocks), "width": width, "codebook_size": codes, "grid": (side, side)}
    values |= {"positions": own["pos_emb"].shape[1], "unmasked_prefix": seen if seen > 1 else 0}
    return len(blocks), values | {"shared_embedding": True}


def _order(cells: Tensor | None, grid: tuple[int, int]) -> str:
    if cells is None:
        return "raster"
    for order in get_args(Order):
        if cells_in_order(order, *grid) == cells.flatten().tolist():
            return str(order)
    raise ValueError(f"`{PERMUTER}` is none of the released orders")


def _condition(values: dict[str, Any], tokenizer: VQGANConfig | None, classes: int | None) -> dict[str, Any]:
    if tokenizer is None:
        if values["positions"] >= 2 * values["grid"][0] * values["grid"][1] - 1:
            raise ValueError("conditioned on something without a tokenizer, as coordinates: not built here")
        if classes is None:
            classes = IMAGENET_CLASSES if (values["layers"], values["width"]) == IMAGENET else 0
        return {"condition": "class", "condition_size": classes} if classes else {"condition": "none"}
    if tokenizer.image_channels == PICTURE:
        raise ValueError("conditioned on pictures, which this gtool does not build")
    kind = "depth" if tokenizer.image_channels == DEPTH else "segmentation"
    return {"condition": kind, "condition_size": tokenizer.codebook_size}


def _rename(own: Tensors, layers: int) -> Tensors:
    """Return the transformer's tensors by our names; the masks, which are made again, are left."""
    renamed = {"codes.weight": own["tok_emb.weight"], "head.weight": own["head.weight"]}
    renamed["positions"] = own["pos_emb"].flatten(0, 1)
    for kind in ("weight", "bias"):
        renamed[f"norm.{kind}"] = own[f"ln_f.{kind}"]
        for block in (f"blocks.{layer}" for layer in range(layers)):
            qkv = [own[f"{block}.attn.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{block}.attention.qkv.{kind}"] = torch.cat(qkv)
            for theirs, ours in IN_BLOCK.items():
                renamed[f"{block}.{ours}.{kind}"] = own[f"{block}.{theirs}.{kind}"]
    return renamed
