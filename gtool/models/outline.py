"""Networks without memory, of however large a size: their names and shapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


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
