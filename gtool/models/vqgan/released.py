"""Files of the released tokenizers -> our names and the config that their shapes imply.

Read for CompVis/taming-transformers at its last commit (Nov 2022): taming/models/vqgan.py, VQModel (images, depth),
VQSegmentationModel (maps, one channel a label) and GumbelVQ. A file is what Lightning saves: the tensors under
`state_dict`, beside them callbacks and settings of foreign classes, which are read as data and never built
(gtool/io/safe_pickle.py). Tokenizers inside files of priors have the same names behind `first_stage_model.` or
`cond_stage_model.`.

Dropped: the losses with their networks, and the colours in which maps were shown. Not in the tensors, and taken from
the released configs: the resolution of 256 px, norms of 32 groups, and the quantizer loss with beta at the wrong term.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool.config.recipe import first_reason
from gtool.errors import CheckpointError
from gtool.io.safe_pickle import plain, read_pickle
from gtool.models.released_files import Rules, rename
from gtool.models.vqgan.config import VQGANConfig

Tensors = dict[str, Tensor]

RESOLUTION = 256
DROPPED = ("loss.", "colorize")
DISCRIMINATOR = "loss.discriminator.main."
OUTSIDE = {
    "quantize.embedding.weight": "quantizer.weight",
    "quantize.embed.weight": "quantizer.weight",
    "quantize.proj.weight": "quantizer.proj.weight",
    "quantize.proj.bias": "quantizer.proj.bias",
    "quant_conv.weight": "to_codes.weight",
    "quant_conv.bias": "to_codes.bias",
    "post_quant_conv.weight": "from_codes.weight",
    "post_quant_conv.bias": "from_codes.bias",
}
IN_BLOCK = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "skip"}
IN_ATTENTION = {"norm": "norm", "proj_out": "out", "q": "q", "k": "k", "v": "v"}
KIND = r"\.(weight|bias)"


def read_file(path: Path) -> tuple[str, VQGANConfig, Tensors]:
    """Return what of a file was read, the config of its tokenizer, and its tensors by our names.

    Raises:
        CheckpointError: unreadable, or no released tokenizer.
    """
    chosen, tensors = read_state(path)
    return chosen, *rename_released(tensors)


def read_state(path: Path) -> tuple[str, Tensors]:
    """Return what of a Lightning file was read, and its tensors by their own names: nothing in it is executed.

    Raises:
        CheckpointError: unreadable, or without named tensors.
    """
    loaded = plain(read_pickle(path))
    chosen = "state_dict" if isinstance(loaded, dict) and "state_dict" in loaded else "the whole file"
    state = plain(loaded["state_dict"]) if chosen == "state_dict" else loaded
    if not isinstance(state, dict) or not state or not all(isinstance(x, Tensor) for x in state.values()):
        raise CheckpointError("holds no named tensors; looked for `state_dict`")
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.]{1,200}", name) for name in state):
        raise CheckpointError("holds no network: names in it are no names")
    return chosen, state


def is_of_this_model(keys: Iterable[str]) -> bool:
    """Say whether names are those of a tokenizer's file; in a file of a prior they stand behind a prefix."""
    names = set(keys)
    return "encoder.conv_in.weight" in names and not any(name.startswith("transformer.") for name in names)


def tokenizer_from(tensors: Mapping[str, Tensor], prefix: str) -> tuple[VQGANConfig, Tensors]:
    """Return the config and the renamed tensors of a tokenizer inside another file, as `first_stage_model.`.

    Raises:
        CheckpointError: as `rename_released`.
    """
    return rename_released(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    )


def rename_released(tensors: Mapping[str, Tensor]) -> tuple[VQGANConfig, Tensors]:
    """Return the config and the tensors of a released tokenizer by our names.

    Raises:
        CheckpointError: names or shapes that no released tokenizer has.
    """
    kept = {name: value for name, value in tensors.items() if not name.startswith(DROPPED)}
    _refuse_others(kept)
    try:
        config = _infer(kept, tensors)
    except KeyError as missing:
        raise CheckpointError(f"no released tokenizer: {missing} is missing") from None
    except (ValueError, IndexError, ZeroDivisionError) as bad:
        raise CheckpointError(f"no released tokenizer: {first_reason(bad)}") from None
    renamed = rename(kept, _rules(len(config.multipliers)), "no released tokenizer")
    try:
        return config, _joined(renamed)
    except RuntimeError:
        raise CheckpointError("no released tokenizer: queries, keys and values differ in shape") from None


def _refuse_others(tensors: Tensors) -> None:
    """Say what a file is, where that can be told and is nothing that we build."""
    if any(name.startswith("transformer.") for name in tensors):
        raise CheckpointError("a prior (Net2Net), and a tokenizer was asked for; read it with --from taming")
    if "quantize.used" in tensors:
        raise CheckpointError("a tokenizer with renumbered codes (remap), which this gtool does not build")


def _infer(tensors: Tensors, whole: Mapping[str, Tensor]) -> VQGANConfig:
    first = tensors["encoder.conv_in.weight"]
    levels = _count(tensors, r"encoder\.down\.(\d{1,2})\.")
    blocks = {
        side: _count(tensors, rf"{side}\.0\.block\.(\d{{1,2}})\.")
        for side in (r"encoder\.down", r"decoder\.up")
    }
    channels = first.shape[0]
    widths = [tensors[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)]
    attends = [level for level in range(levels) if f"encoder.down.{level}.attn.0.q.weight" in tensors]
    gumbel = "quantize.embed.weight" in tensors
    size, dim = tensors[f"quantize.{'embed' if gumbel else 'embedding'}.weight"].shape
    values: dict[str, Any] = {
        "resolution": RESOLUTION,
        "image_channels": first.shape[1],
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "blocks": blocks[r"encoder\.down"],
        "attention_sides": [RESOLUTION >> level for level in attends],
        "z_channels": tensors["quant_conv.weight"].shape[1],
        "quantizer": {"size": size, "dim": dim} | ({"kind": "gumbel"} if gumbel else {"legacy": True}),
    }
    if blocks[r"decoder\.up"] != values["blocks"] + 1:
        values["decoder_blocks"] = blocks[r"decoder\.up"]
    if f"{DISCRIMINATOR}0.weight" in whole:
        counted = _count(whole, re.escape(DISCRIMINATOR) + r"(\d{1,2})\.weight", contiguous=False)
        width = whole[f"{DISCRIMINATOR}0.weight"].shape[0]
        values["discriminator"] = {"channels": width, "layers": (counted - 2) // 2}
    return VQGANConfig.model_validate(values)


def _count(names: Iterable[str], pattern: str, contiguous: bool = True) -> int:
    """Return how many numbers stand where the pattern has its group; they begin at 0.

    Raises:
        ValueError: numbers are left out.
    """
    found = {int(match[1]) for name in names if (match := re.match(pattern, name))}
    if contiguous and found != set(range(len(found))):
        raise ValueError("blocks or levels in it are left out")
    return len(found)


def _rules(levels: int) -> Rules:
    """Return patterns of their names with ours, queries, keys and values still apart."""
    network = r"(encoder|decoder)\."
    rules: Rules = [(re.escape(theirs), ours) for theirs, ours in OUTSIDE.items()]
    rules.append((rf"{network}(conv_in|norm_out|conv_out){KIND}", r"\1.\2.\3"))
    for theirs, ours in IN_BLOCK.items():
        rules += [
            (rf"{network}mid\.block_{n}\.{theirs}{KIND}", rf"\1.middle.blocks.{n - 1}.{ours}.\2")
            for n in (1, 2)
        ]
    for theirs, ours in IN_ATTENTION.items():
        rules.append((rf"{network}mid\.attn_1\.{theirs}{KIND}", rf"\1.middle.attention.{ours}.\2"))
    for level in range(levels):
        # Theirs are numbered from the finest in both networks, ours in the order of work.
        for place in (rf"{network}down\.{level}\.", rf"{network}up\.{levels - 1 - level}\."):
            here = rf"\1.levels.{level}"
            rules.append((rf"{place}(?:down|up)sample\.conv{KIND}", rf"{here}.resample.conv.\2"))
            for part, folder, names in (("block", "blocks", IN_BLOCK), ("attn", "attentions", IN_ATTENTION)):
                rules += [
                    (rf"{place}{part}\.(\d{{1,2}})\.{theirs}{KIND}", rf"{here}.{folder}.\2.{ours}.\3")
                    for theirs, ours in names.items()
                ]
    return rules


def _joined(tensors: Tensors) -> Tensors:
    """Put queries, keys and values of each attention into one tensor."""
    joined = {name: value for name, value in tensors.items() if not re.search(rf"\.[qkv]{KIND}$", name)}
    for name in tensors:
        if found := re.fullmatch(rf"(.+)\.q{KIND}", name):
            parts = [tensors.get(f"{found[1]}.{part}.{found[2]}") for part in "qkv"]
            if any(part is None for part in parts):
                raise CheckpointError(f"no released tokenizer: `{found[1]}` lacks keys or values")
            joined[f"{found[1]}.qkv.{found[2]}"] = torch.cat([part for part in parts if part is not None])
    return joined
