"""Floating-point operations of a network."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    return sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]


# The one fused attention that the library's table lacks.
KERNELS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


@torch.no_grad()
def forward_flops(network: Any) -> float:
    """Return the floating-point operations (a multiply or an add) of one image, forward only, in eval mode.

    network: with `example_inputs`, built on any device; on the meta device nothing is computed.
    """
    training = {module: module.training for module in network.modules()}
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval().requires_grad_(False)  # the counter's hooks fail at views of what requires a gradient
    try:
        with FlopCounterMode(display=False, custom_mapping=KERNELS) as counter:
            network(*network.example_inputs())
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter in learning:
            parameter.requires_grad_(True)
    return float(counter.get_total_flops())
