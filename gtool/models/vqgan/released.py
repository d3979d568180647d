"""Files of the released tokenizers -> our names and the config that their shapes imply.

Read for CompVis/taming-transformers at its last commit (Nov 2022): taming/models/vqgan.py, VQModel (images, depth),
VQSegmentationModel (maps, one channel a label) and GumbelVQ. A file is what Lightning saves: the tensors under
`state_dict`, beside them callbacks and settings of foreign classes, which are read as data and never built
(gtool/io/safe_pickle.py). Tokenizers inside files of priors have the same names behind `first_stage_model.` or
`cond_stage_model.`.

Dropped: the losses with their networks, and the colours in which maps were shown. Not in the tensors, and taken from
the released configs: the resolution of 256 px, norms of 32 groups, and the quantizer loss with beta at the wrong term.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool.config.recipe import first_reason
from gtool.errors import CheckpointError
from gtool.io.safe_pickle import plain, read_pickle
from gtool.models.released_files import Rules, Tensors, numbers, rename
from gtool.models.vqgan.config import VQGANConfig

RESOLUTION = 256
DROPPED = ("loss.", "colorize")
KIND = r"\.(weight|bias)"
IN_BLOCK = r"(norm1|conv1|norm2|conv2|nin_shortcut)"
IN_ATTENTION = r"(norm|proj_out|q|k|v)"
OUTSIDE: Rules = [
    (r"quantize\.embed(?:ding)?\.weight", "quantizer.weight"),
    (rf"quantize\.proj{KIND}", r"quantizer.proj.\1"),
    (rf"quant_conv{KIND}", r"to_codes.\1"),
    (rf"post_quant_conv{KIND}", r"from_codes.\1"),
]


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
    if any(name.startswith("transformer.") for name in kept):
        raise CheckpointError("a prior (Net2Net), and a tokenizer was asked for; read it with --from taming")
    if "quantize.used" in kept:
        raise CheckpointError("a tokenizer with renumbered codes (remap), which this gtool does not build")
    try:
        config = _infer(kept)
    except KeyError as missing:
        raise CheckpointError(f"no released tokenizer: {missing} is missing") from None
    except (ValueError, IndexError, ZeroDivisionError) as bad:
        raise CheckpointError(f"no released tokenizer: {first_reason(bad)}") from None
    renamed = rename(kept, _rules(len(config.multipliers)), "no released tokenizer")
    try:
        return config, _joined(renamed)
    except RuntimeError:
        raise CheckpointError("no released tokenizer: queries, keys and values differ in shape") from None


def _infer(tensors: Tensors) -> VQGANConfig:
    first = tensors["encoder.conv_in.weight"]
    levels = _count(tensors, r"encoder\.down\.(\d{1,2})\.")
    down, up = (
        _count(tensors, rf"{side}\.0\.block\.(\d{{1,2}})\.") for side in (r"encoder\.down", r"decoder\.up")
    )
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
        "blocks": down,
        "attention_sides": [RESOLUTION >> level for level in attends],
        "z_channels": tensors["quant_conv.weight"].shape[1],
        "quantizer": {"size": size, "dim": dim} | ({"kind": "gumbel"} if gumbel else {"legacy": True}),
    }
    if up != down + 1:
        values["decoder_blocks"] = up
    return VQGANConfig.model_validate(values)


def _count(names: Iterable[str], pattern: str) -> int:
    """Return how many numbers, from 0 on, stand where the pattern has its group; ValueError: some are left out."""
    found = numbers(names, pattern)
    if found != set(range(len(found))):
        raise ValueError("blocks or levels in it are left out")
    return len(found)


def _rules(levels: int) -> Rules:
    """Return patterns of their names with ours, but for the names of `_joined`."""
    network = r"(encoder|decoder)\."
    rules = [
        *OUTSIDE,
        (rf"{network}(conv_in|norm_out|conv_out){KIND}", r"\1.\2.\3"),
        (rf"{network}mid\.block_1\.{IN_BLOCK}{KIND}", r"\1.middle.blocks.0.\2.\3"),
        (rf"{network}mid\.block_2\.{IN_BLOCK}{KIND}", r"\1.middle.blocks.1.\2.\3"),
        (rf"{network}mid\.attn_1\.{IN_ATTENTION}{KIND}", r"\1.middle.attention.\2.\3"),
    ]
    for level in range(levels):
        # Theirs are numbered from the finest in both networks, ours in the order of work.
        theirs, ours = rf"{network}(?:down\.{level}|up\.{levels - 1 - level})\.", rf"\1.levels.{level}"
        rules += [
            (rf"{theirs}(?:down|up)sample\.conv{KIND}", rf"{ours}.resample.conv.\2"),
            (rf"{theirs}block\.(\d{{1,2}})\.{IN_BLOCK}{KIND}", rf"{ours}.blocks.\2.\3.\4"),
            (rf"{theirs}attn\.(\d{{1,2}})\.{IN_ATTENTION}{KIND}", rf"{ours}.attentions.\2.\3.\4"),
        ]
    return rules


def _joined(tensors: Tensors) -> Tensors:
    """Put queries, keys and values of each attention into one tensor, and name the last parts."""
    joined: Tensors = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(rf"(.+)\.([qkv]){KIND}", name)
        if found is None:
            joined[name.replace(".nin_shortcut.", ".skip.").replace(".proj_out.", ".out.")] = tensor
        elif found[2] == "q":
            parts = [tensors.get(f"{found[1]}.{part}.{found[3]}") for part in "qkv"]
            if any(part is None for part in parts):
                raise CheckpointError(f"no released tokenizer: `{found[1]}` lacks keys or values")
            joined[f"{found[1]}.qkv.{found[3]}"] = torch.cat([part for part in parts if part is not None])
    return joined
