"""Networks without memory, of however large a size: their names, shapes and arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


@contextmanager
def outline() -> Iterator[None]:
    """Build networks on the meta device, leaving initial values out; what a network computes has its values.

    Random numbers and arithmetic on that device are written in Python and import torch._dynamo, 1.8 s.
    """
    with torch.device("meta"), _WithoutValues():
        yield


class _WithoutValues(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if function in (torch.randn, torch.rand):
            return torch.empty(*args, **(kwargs or {}))
        scaled = function in (torch.Tensor.mul, torch.Tensor.__rmul__, torch.Tensor.div)
        if scaled and args[0].is_meta and isinstance(args[1], float | int):
            return torch.empty(args[0].shape, dtype=args[0].dtype)
        return function(*args, **(kwargs or {}))


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
