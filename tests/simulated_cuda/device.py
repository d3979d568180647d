"""A simulated `cuda:0`: it refuses CPU tensors beside its own, as a GPU does, and counts all work.

A tensor of it holds one on the CPU, which computes, or one on the meta device, which knows its shape alone and lets a
step of any size be measured. It is dispatched to as a tensor on CUDA: autocast, autograd and Python see `cuda:0`. What
CUDA's kernels refuse and the CPU's do not is refused here: operands on two devices, generators of another device, too
little shared memory for an antialiased resize. Time, and the numbers that a GPU would compute, are not simulated.

`simulate()` changes torch for the rest of the process.
"""

from __future__ import annotations

import atexit
import ctypes
import re
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from tests.simulated_cuda.counts import (
    BLOCK,
    EMPTY,
    INDEXING,
    MEMORY,
    NEVER_ORDERED,
    NUMBERS_TOO,
    ORDERED_IF_ASKED,
    SHARED_MEMORY,
    WAITS,
    Counts,
    counts,
    options,
    place,
    shared_memory,
)

CUDA = torch.device("cuda", 0)


class Simulated(torch.Tensor):
    """A tensor on the device; `inner` is on the CPU, or on the meta device."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> Simulated:
        shape = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), **shape, device=CUDA, requires_grad=requires_grad
        )
        made.inner = inner
        _allocate(inner)
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Simulated({tuple(self.shape)}, {self.dtype})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # by which modules move their parameters to it
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, *_: Any) -> Simulated:
        return Simulated(inner["inner"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied = Simulated(self.inner.detach().clone())
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        return memo[id(self)]


class _Mode(TorchDispatchMode):
    """Catches what is made on the device out of nothing, or out of tensors on the CPU."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled; else torch._dynamo is imported
        return False

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class Generator(torch._C.Generator):
    """A generator of the device."""

    device = CUDA  # type: ignore[assignment]

    known: ClassVar[Any] = weakref.WeakValueDictionary()  # by torch's own object

    def __init__(self) -> None:
        self.known[self._cdata] = self

    def manual_seed(self, seed: int) -> Generator:
        super().manual_seed(seed)
        return self


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one operation, where it belongs, after checking that a GPU would."""
    name = function._schema.name.removeprefix("aten::")
    leaves = tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, Simulated)]
    target = kwargs.get("device")
    to_device = target is not None and torch.device(target).type == "cuda"
    if not ours and not to_device:
        with _disable_current_modes():
            return function(*args, **kwargs)
    if name in ("_to_copy", "copy_", "_foreach_copy_"):
        _count_copy(name, args, kwargs)
    else:
        _refuse(name, args, leaves, bool(ours))
    if name in WAITS or (
        function is torch.ops.aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
    ):
        counts.waits[f"{name} {place()}"] += 1
    if name in INDEXING and any(
        isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    ):
        counts.waits[f"index by bool {place()}"] += 1
    out = _compute(function, name, args, kwargs, to_device)
    _count(function, name, args)
    returns = function._schema.returns
    if not returns:
        return None
    if returns[0].alias_info is not None and returns[0].alias_info.is_write:  # in place
        return kwargs.get("out", args[0])
    if (target is not None and not to_device) or not isinstance(out, torch.Tensor | tuple | list):
        return out
    return tree_map(lambda leaf: Simulated(leaf) if isinstance(leaf, torch.Tensor) else leaf, out)


def _compute(function: Any, name: str, args: Any, kwargs: dict[str, Any], to_device: bool) -> Any:
    values = options["values"]
    place = torch.device("cpu" if values else "meta")

    def inner(leaf: Any) -> Any:
        if isinstance(leaf, Simulated):
            return leaf.inner
        if isinstance(leaf, torch.Tensor) and not values and leaf.dim():
            return leaf.to("meta")
        return leaf

    with _disable_current_modes():
        args, kwargs = tree_map(inner, args), tree_map(inner, kwargs)
        if to_device:
            kwargs["device"] = place
            kwargs.pop("pin_memory", None)
        if not values and (made := _without_values(function, name, args, kwargs)) is not None:
            return made
        if name == "cudnn_batch_norm":
            return (*torch.ops.aten.native_batch_norm(*args), torch.empty(0, dtype=torch.uint8))
        if name == "_fused_rms_norm_backward" and values:  # of CUDA alone
            return _rms_norm_backward(*args[:2], *args[3:5])
        return function(*args, **kwargs)


def _rms_norm_backward(grad: Any, x: Any, scale: Any, weight: Any) -> Any:
    normed, wanted = x * scale, grad * weight
    of_x = scale * (wanted - normed * (wanted * normed).mean(-1, keepdim=True))
    return of_x.to(x.dtype), (grad * normed).flatten(0, -2).sum(0).to(weight.dtype)


def _without_values(function: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """Results that depend on numbers which are not there: some plausible ones; None for all other operations."""
    if name == "_local_scalar_dense":
        return {torch.bool: False}.get(args[0].dtype, 0.5 if args[0].dtype.is_floating_point else 1)
    if name == "_to_copy" and str(kwargs.get("device")) == "cpu":
        return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
    if name == "copy_" and args[0].device != args[1].device:
        return args[0]
    if name in ("rand", "randn", "randint"):  # written in Python on the meta device, and slow to import
        default = torch.int64 if name == "randint" else None
        size = next(arg for arg in args if isinstance(arg, list | tuple))
        return torch.empty(size, dtype=kwargs.get("dtype") or default, device="meta")
    if name == "nonzero":
        return torch.zeros(args[0].numel() // 2 + 1, args[0].dim(), dtype=torch.long, device="meta")
    return None


def _refuse(name: str, args: Any, leaves: list[Any], has_ours: bool) -> None:
    """Raise what CUDA raises."""
    on_cpu = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, Simulated)]
    if has_ours and name in INDEXING and isinstance(args[0], Simulated):
        if any(x.dim() for x in on_cpu):
            counts.waits[f"index from the CPU {place()}"] += 1
    elif has_ours:
        first_on_cpu = (
            name.endswith("_") and isinstance(args[0], torch.Tensor) and not isinstance(args[0], Simulated)
        )
        if any(x.dim() or name in NUMBERS_TOO for x in on_cpu) or first_on_cpu:
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} at {place()}")
    if any(isinstance(x, torch._C.Generator) and x._cdata not in Generator.known for x in leaves):
        raise RuntimeError(f"Expected a 'cuda' device type for generator: {name} at {place()}")
    if name in ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"):
        needed = shared_memory(args[0].shape[-2:], args[1], 2.0 if "bicubic" in name else 1.0)
        if needed > SHARED_MEMORY:
            raise RuntimeError(f"Too much shared memory required: {needed} bytes at {place()}")
    if (
        name in ("native_layer_norm_backward", "native_group_norm_backward")
        and args[0].dtype != args[1].dtype
    ):
        raise RuntimeError(
            f"expected scalar type {args[1].dtype} but found {args[0].dtype}: {name} at {place()}"
        )


def _count_copy(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    if name == "_foreach_copy_":
        return
    source = args[0] if name == "_to_copy" else args[1]
    target = (
        kwargs.get("device") if name == "_to_copy" else ("cuda" if isinstance(args[0], Simulated) else "cpu")
    )
    if target is None:
        return
    from_device, to_device = isinstance(source, Simulated), torch.device(target).type == "cuda"
    at_once = kwargs.get("non_blocking", len(args) > 2 and args[2]) and (
        from_device or hasattr(source, "pinned")
    )
    if to_device and not from_device:
        counts.copies[place()] += 1
        counts.copied_bytes += source.numel() * source.element_size()
    if to_device != from_device and not at_once and torch.device(target).type != "meta":
        counts.waits[f"copy {place()}"] += 1


def _count(function: Any, name: str, args: Any) -> None:
    if function.is_view or name in EMPTY or name == "_local_scalar_dense":
        return
    if name.startswith(("_foreach", "_fused")):
        listed = next((arg for arg in args if isinstance(arg, list | tuple) and arg), ())
        number = 1 + len(listed) // 48
    else:
        number = 1
    counts.kernels += number
    counts.operations[name] += number
    asked = torch.are_deterministic_algorithms_enabled()
    adds_nothing = name == "grid_sampler_2d_backward" and not args[-1][0]  # at the places, not at the image
    if (name in NEVER_ORDERED and not adds_nothing) or (name in ORDERED_IF_ASKED and not asked):
        counts.unordered[f"{name} {place()}"] += 1


_storages: dict[int, Any] = {}


def _allocate(inner: torch.Tensor) -> None:
    """Count a storage from now until it is freed."""
    storage = inner.untyped_storage()
    key = storage._cdata
    if key in _storages:
        return
    size = -(-storage.nbytes() // BLOCK) * BLOCK

    def free(_: Any) -> None:
        _storages.pop(key, None)
        counts.live -= size

    _storages[key] = weakref.ref(storage, free)
    counts.live += size
    counts.peak = max(counts.peak, counts.live)


# Attention: CUDA chooses among fused kernels by what it knows of the GPU.


def _attention(
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **others: Any,
) -> Any:
    if q.device.type != "cuda":
        return _library_attention(q, k, v, attn_mask, dropout_p, is_causal, **others)
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (x.to(torch.get_autocast_dtype("cuda")) for x in (q, k, v))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(q.dtype)
    for operand in (k, v, attn_mask):
        if operand is not None and operand.device.type != "cuda":
            raise RuntimeError(f"Expected all tensors to be on the same device: attention at {place()}")
    return _Attention.apply(q, k, v, attn_mask, is_causal, others.get("scale"))


class _Attention(torch.autograd.Function):
    """A fused kernel: keeps its operands, its output and a number a row; has no second derivative."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float | None) -> Any:
        ctx.how = mask, causal, scale
        if options["values"] and isinstance(q, Simulated):
            out = Simulated(_attend(q.inner, k.inner, v.inner, mask, causal, scale))
        else:
            out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        counts.kernels += 1
        counts.operations["attention"] += 1
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Any) -> Any:
        q, k, v = ctx.saved_tensors[:3]
        counts.kernels += 3
        counts.operations["attention_backward"] += 3
        mask = ctx.how[0]
        grads: Any = [torch.empty_like(x) for x in (q, k, v)]
        bias = torch.empty_like(mask) if ctx.needs_input_grad[3] else None
        if options["values"] and isinstance(q, Simulated):
            with torch.enable_grad(), _disable_current_modes():
                inner = [x.inner.detach().requires_grad_() for x in (q, k, v)]
                learned = mask if bias is None else mask.inner.detach().requires_grad_()
                out = _attend(*inner, learned, *ctx.how[1:])
                wanted = inner if bias is None else [*inner, learned]
                found = [Simulated(x) for x in torch.autograd.grad(out, wanted, grad.inner)]
            grads, bias = found[:3], found[3] if bias is not None else None
        return *grads, bias, None, None


def _attend(q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float | None) -> Any:
    with _disable_current_modes():
        mask = mask.inner if isinstance(mask, Simulated) else mask
        return _library_attention(q, k, v, mask, 0.0, causal, scale=scale)


_library_attention = F.scaled_dot_product_attention


# Making torch believe in the device.


def simulate(*, values: bool = True, gpus: int = 1) -> None:
    """Let torch find `gpus` GPUs, for the rest of the process.

    values: compute numbers; else shapes alone are known, and memory of any size costs nothing.
    """
    options["values"] = values
    _disown_contexts()
    torch._C._ensureCUDADeviceGuardSet()  # one that does nothing, as there is no GPU
    torch._C._set_only_lift_cpu_tensors(True)
    replace = {
        "is_available": lambda: True,
        "device_count": lambda: gpus,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "Simulated GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "_lazy_init": lambda: None,
        "synchronize": lambda device=None: counts.waits.update([f"synchronize {place()}"]),
        "empty_cache": lambda: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "max_memory_allocated": lambda device=None: counts.peak,
    }
    for name, function in replace.items():
        setattr(torch.cuda, name, function)
    F.scaled_dot_product_attention = _attention
    torch.Tensor.pin_memory = _pin_memory
    torch.Tensor.tolist = _tolist
    _make_generators()
    for module in ("torch.optim.optimizer", "torch.utils._foreach_utils"):
        sys.modules[module]._foreach_supported_types.append(Simulated)  # type: ignore[attr-defined]
    _Mode().__enter__()


@contextmanager
def counted() -> Iterator[Counts]:
    """Count from here."""
    counts.reset()
    yield counts


def _pin_memory(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    pinned = tensor.clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


_library_tolist = torch.Tensor.tolist


def _tolist(tensor: torch.Tensor) -> Any:
    return _library_tolist(tensor.cpu() if isinstance(tensor, Simulated) else tensor)


def _make_generators() -> None:
    library = torch.Generator

    class AnyGenerator(type(library)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, library)

    class Made(metaclass=AnyGenerator):
        def __new__(cls, device: Any = "cpu") -> Any:
            return Generator() if torch.device(device).type == "cuda" else library()

    torch.Generator = Made  # type: ignore[assignment,misc]


def _disown_contexts() -> None:
    """Let the autograd engine's question whether a GPU has a context be answered by no, without a driver.

    The answer is a virtual method of torch's CUDA hooks; its place in their table is read from torch's header.
    """
    root = Path(torch.__file__).parent
    header = (root / "include/ATen/detail/AcceleratorHooksInterface.h").read_text()
    methods = re.findall(r"virtual [^;{]*?(~?\w+)\(", header)
    place = methods.index("hasPrimaryContext") + 1  # destructors have two
    get = ctypes.CDLL(str(root / "lib" / "libtorch_cpu.so"))._ZN2at6detail12getCUDAHooksEv
    get.restype = ctypes.POINTER(ctypes.c_void_p)
    hooks = get()  # an object, which begins with the address of its table
    before = hooks[0] or 0
    size = ctypes.sizeof(ctypes.c_void_p)
    never = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)(lambda this, index: False)
    table = (ctypes.c_void_p * 130).from_buffer_copy(ctypes.string_at(before - 2 * size, 130 * size))
    table[2 + place] = ctypes.cast(never, ctypes.c_void_p).value
    hooks[0] = ctypes.addressof(table) + 2 * size
    _kept.extend([never, table])
    atexit.register(hooks.__setitem__, 0, before)


_kept: list[Any] = []
