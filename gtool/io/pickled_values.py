"""What a foreign pickle may hold: kinds of value, and what is checked before one of them is made.

The machine that runs such pickles is in gtool/pickles.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MOST_PARTS = 16  # of a key, a shape, the arguments of a call that is understood
STORAGES = {  # their classes in torch
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class RefusedPickleError(Exception):
    """A pickle that is damaged, forged, or beyond this reader; the message says why."""


@dataclass(frozen=True)
class Name:
    """What a pickle wanted to import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What a pickle wanted to build: nobody did."""

    what: Any  # a Name, as a rule
    arguments: tuple[Any, ...]
    state: Any = None  # what the object would have been given afterwards
    items: list[Any] = field(default_factory=list)  # of a list
    pairs: dict[Any, Any] = field(default_factory=dict)  # of a dictionary


@dataclass(frozen=True)
class Storage:
    """The numbers of one or more tensors."""

    dtype: str
    content: bytearray


_HASHED = (str, int, float, bool, type(None), bytes, Name)


def checked_keys(values: list[Any]) -> list[Any]:
    """Refuse keys that are costly to hash: Python follows tuples to any depth, and long numbers to their end."""
    for key in values:
        for part in key if type(key) is tuple and len(key) <= MOST_PARTS else (key,):
            if type(part) not in _HASHED or (type(part) is int and part.bit_length() > 64):
                raise RefusedPickleError(f"a key of the kind {type(part).__name__}")
    return values


def checked_name(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise RefusedPickleError("damaged (a name that is no text)")
    return Name(module, name)


# Tensors.


def as_tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: Any
) -> Tensor:
    """A view of a storage, of no element outside of it; views share memory, so many of them are not much."""
    import torch

    if not isinstance(storage, Storage):
        raise RefusedPickleError("a tensor without numbers")
    is_shape = isinstance(size, tuple) and isinstance(stride, tuple)
    if not is_shape or not len(size) == len(stride) <= MOST_PARTS:
        raise RefusedPickleError("a tensor with a forged shape")
    lengths = [offset, *size, *stride]
    if any(type(n) is not int or not 0 <= n < 2**48 for n in lengths) or prod(n or 1 for n in size) >= 2**48:
        raise RefusedPickleError("a tensor with a forged shape")
    dtype: torch.dtype = getattr(torch, storage.dtype)
    held = len(storage.content) // dtype.itemsize
    if 0 in size:
        return torch.empty(size, dtype=dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= held or prod(size) > held:
        raise RefusedPickleError("a tensor larger than its numbers")
    return torch.frombuffer(storage.content, dtype=dtype).as_strided(size, stride, offset)


def read_identity(identity: Any) -> tuple[str, str, int]:
    """Return dtype, key and count of ("storage", class, key, device, count, ...)."""
    kind, what, key, _, count = identity[:5]
    name = what.name if isinstance(what, Name) else ""
    if kind != "storage" or name not in STORAGES or not isinstance(key, str):
        raise RefusedPickleError(f"numbers of an unknown kind `{name[:40]}`")
    if type(count) is not int or not 0 <= count < 2**48:
        raise RefusedPickleError("a storage of a forged size")
    return STORAGES[name], key, count


def itemsize(dtype: str) -> int:
    import torch

    return int(getattr(torch, dtype).itemsize)


def encoded(text: Any, encoding: Any) -> bytes:
    """Bytes in a pickle of protocol 2, which has none."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedPickleError("damaged (bytes)")
    return text.encode("latin1")
