"""Peak memory of a training step from shapes alone: the step itself, of tensors that have a device but no values."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gtool.config.schema import Recipe
from gtool.data.loader import Batches
from gtool.data.pixel_cache import ImageArrays
from gtool.models import registry
from gtool.models.outline import outline
from gtool.runtime.device import Compute


def peak_memory(recipe: Recipe, config: Any, compute: Compute, processes: int = 1) -> int | None:
    """Return the bytes that tensors of one process take in the step that takes most: with every regularizer due.

    What the allocator and libraries keep beside comes on top. None where a step depends on values.
    """
    train = recipe.train
    share = train.batch_size // processes
    size = min(train.micro_batch or share, share)
    generated = (train.generator_batch_size or train.batch_size) // processes
    sizes = {"batch_size": size, "n_critic": 1}
    sizes["generator_batch_size"] = size if train.micro_batch else generated
    recipe = recipe.model_copy(update={"train": train.model_copy(update=sizes)})
    with _Shapes() as shapes:
        trainer = registry.trainer(recipe.model_name)
        side = recipe.data.resolution
        image = ImageArrays(np.zeros((1, 3, side, side), np.uint8), None, "")
        with outline():
            images = Batches(image, seed=0, flip=False)
            state = trainer.blank_state(recipe, config, replace(compute, threads=1), images)
        if state is None:
            return None
        state.progress = 0.5
        for network, optimizer in state.optimizers.values():  # which begins to remember at its first step
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        trainer.step(state)
        # Those of the micro-batches before.
        gradients = [sum(p.nbytes for p in network.parameters()) for network, _ in state.optimizers.values()]
    return shapes.peak + (max(gradients) if max(share, generated) > size else 0)


class _Shape(torch.Tensor):
    """A tensor on a device that takes no memory there; `inner`, on the meta device, knows its shape and storage."""

    inner: torch.Tensor  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = torch.nn.Parameter(self.detach().clone(), self.requires_grad)
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{function}: of shapes, outside of the step")


class _Shapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Puts on a device what comes of shapes, and networks of the meta device; counts the storages that live there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found: list[_Shape] = []
        inner = _map(lambda x: _inner(x, found), args)
        of_inner = {name: _map(lambda x: _inner(x, found), value) for name, value in kwargs.items()}
        target = kwargs.get("device")
        is_outline = bool(args) and isinstance(args[0], torch.Tensor) and args[0].is_meta
        if not found and not (is_outline and target is not None and torch.device(target).type != "meta"):
            return function(*args, **kwargs)
        if function is torch.ops.aten._local_scalar_dense.default:
            return 1
        device = found[0].device if target is None else target
        if target is not None:
            of_inner["device"] = "meta"
        out = function(*inner, **of_inner)
        returns = function._schema.returns
        if returns and returns[0].alias_info is not None and returns[0].alias_info.is_write:  # in place
            return kwargs.get("out", args[0])
        return _map(lambda x: self._put(x, device) if isinstance(x, torch.Tensor) else x, out)

    def _put(self, inner: torch.Tensor, device: Any) -> _Shape:
        storage = inner.untyped_storage()
        key, size = storage._cdata, storage.nbytes()

        def free(_: Any) -> None:
            del self._known[key]
            self.live -= size

        if key not in self._known:
            self._known[key] = weakref.ref(storage, free)
            self.live += size
            self.peak = max(self.peak, self.live)
        made = torch.Tensor._make_wrapper_subclass(
            _Shape,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        made.inner = inner
        return made


def _map(function: Callable[[Any], Any], x: Any) -> Any:
    return type(x)(_map(function, one) for one in x) if isinstance(x, list | tuple) else function(x)


def _inner(x: Any, found: list[_Shape]) -> Any:
    if isinstance(x, _Shape):
        found.append(x)
        return x.inner
    is_number = not isinstance(x, torch.Tensor) or (x.dim() == 0 and x.device.type == "cpu")
    return x if is_number else x.to("meta")
