"""Foreign pickles read as data: nothing that they name is imported, called or built.

A pickle is a program for a machine with a stack, and two of its instructions import and call whatever the file says.
This module runs such programs on a machine of its own that has neither: a name stays a `Name`, a call stays a
`Record` of what would have been called with what, and only the few records that stand for tensors and dictionaries
become these, after their sizes have been checked against the bytes that are there. So files whose networks are
pickled objects, with the source text of their classes beside them, can be read for their tensors.

Read are plain pickles (`pickle.dump` of modules) and the zip files of `torch.save`.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gtool.errors import CheckpointError
from gtool.io.pickled_values import (
    MOST_PARTS,
    Name,
    Record,
    RefusedPickleError,
    Storage,
    as_tensor,
    checked_keys,
    checked_name,
    encoded,
    itemsize,
    read_identity,
)

MOST_BYTES = 8 * 2**30
MOST_STEPS = 5_000_000  # a released file takes about 100,000
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

Persistent = Callable[[Any], Any]


def read_pickle(path: Path) -> Any:
    """Read a plain pickle, or a zip file of `torch.save`, as data.

    Returns:
        Numbers, text, containers, tensors, and a `Name` or a `Record` for everything else.

    Raises:
        CheckpointError: missing, too large, damaged, forged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RefusedPickleError(f"larger than {MOST_BYTES >> 30} GiB")
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _run(io.BytesIO(path.read_bytes()))
    except RefusedPickleError as refused:
        raise CheckpointError(f"{path}: not a readable pickle: {refused}") from None
    # RuntimeError, NotImplementedError and ValueError: zip files that are encrypted, too new, or with broken names.
    except (OSError, zipfile.BadZipFile, MemoryError, RuntimeError, ValueError, LookupError, EOFError) as bad:
        raise CheckpointError(f"{path}: not a readable pickle: {_first_line(bad) or 'too large'}") from None


def plain(value: Any) -> Any:
    """Return a dictionary for one of another class (`EasyDict`), and anything else as it is."""
    return value.pairs if isinstance(value, Record) and value.pairs else value


def _first_line(bad: object) -> str:
    return next(iter(str(bad)[:200].splitlines()), "")[:80]


def _run(stream: io.BytesIO, persistent: Persistent | None = None, calls: bool = True) -> Any:
    """Run one pickle of a stream, and leave the stream behind it; without calls, one is an error."""
    machine = _Machine(persistent, calls)
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step > MOST_STEPS:
                raise RefusedPickleError(f"more than {MOST_STEPS:,} instructions")
            if opcode.name == "STOP":
                return machine.pop()
            machine.execute(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as bad:
        raise RefusedPickleError(f"damaged ({_first_line(bad) or type(bad).__name__})") from None
    raise RefusedPickleError("it ends too early")


class _Machine:
    """The stack, its marks, and what was memorised."""

    def __init__(self, persistent: Persistent | None, calls: bool) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.persistent, self.calls = persistent, calls
        # By the argument: what is asked for a thousand times, is made once.
        self.made: dict[int, tuple[Any, Any]] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        """Take one step."""
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode not in ("PROTO", "FRAME"):
            known = self._contain(opcode) or self._fill(opcode) or self._import_or_call(opcode, argument)
            if not known:
                raise RefusedPickleError(f"instruction {opcode} is not for data")

    def pop(self) -> Any:
        """Take the uppermost value, which no mark may cover."""
        if not self.stack or (self.marks and len(self.stack) <= self.marks[-1]):
            raise RefusedPickleError("damaged (empty stack)")
        return self.stack.pop()

    def _since_mark(self) -> list[Any]:
        if not self.marks:
            raise RefusedPickleError("damaged (no mark)")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _contain(self, opcode: str) -> bool:
        """Containers and the stack itself; False where the instruction is none of these."""
        push = self.stack.append
        match opcode:
            case "MARK":
                self.marks.append(len(self.stack))
            case "POP" if self.marks and len(self.stack) == self.marks[-1]:
                self.marks.pop()
            case "POP":
                self.pop()
            case "POP_MARK":
                self._since_mark()
            case "EMPTY_TUPLE":
                push(())
            case "EMPTY_LIST":
                push([])
            case "EMPTY_DICT":
                push({})
            case "EMPTY_SET":
                push(set())
            case "TUPLE":
                push(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([self.pop() for _ in range(int(opcode[-1]))][::-1]))
            case "LIST":
                push(self._since_mark())
            case "DICT":
                values = self._since_mark()
                push(dict(zip(checked_keys(values[::2]), values[1::2], strict=True)))
            case "FROZENSET":
                push(frozenset(checked_keys(self._since_mark())))
            case _:
                return False
        return True

    def _fill(self, opcode: str) -> bool:
        """What is put into the container below."""
        match opcode:
            case "APPEND" | "APPENDS":
                values = [self.pop()] if opcode == "APPEND" else self._since_mark()
                self._below(list, "items").extend(values)
            case "SETITEM" | "SETITEMS":
                values = [self.pop(), self.pop()][::-1] if opcode == "SETITEM" else self._since_mark()
                self._below(dict, "pairs").update(zip(checked_keys(values[::2]), values[1::2], strict=True))
            case "ADDITEMS":
                values = self._since_mark()
                self._below(set, "").update(checked_keys(values))
            case _:
                return False
        return True

    def _below(self, kind: type, part: str) -> Any:
        target = self.stack[-1]
        if part and isinstance(target, Record):
            return getattr(target, part)
        if not isinstance(target, kind):
            raise RefusedPickleError(f"damaged (no {kind.__name__})")
        return target

    def _import_or_call(self, opcode: str, argument: Any) -> bool:
        """What would have been imported and called."""
        push = self.stack.append
        match opcode:
            case "GLOBAL":
                push(checked_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                push(checked_name(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, what = self.pop(), self.pop()
                push(self._called(what, arguments))
            case "NEWOBJ_EX":
                named, arguments, what = self.pop(), self.pop(), self.pop()
                push(Record(what, (arguments, named)))
            case "INST":
                push(Record(checked_name(*argument.split(" ", 1)), tuple(self._since_mark())))
            case "OBJ":
                what, *arguments = self._since_mark()
                push(Record(what, tuple(arguments)))
            case "BUILD":
                state, target = self.pop(), self.stack[-1]
                if isinstance(target, Record):
                    target.state = state
                elif not isinstance(target, dict):  # an OrderedDict with attributes
                    raise RefusedPickleError("damaged (state of a value)")
            case "BINPERSID":
                if self.persistent is None:
                    raise RefusedPickleError("it refers to numbers outside of it")
                push(self.persistent(self.pop()))
            case _:
                return False
        return True

    def _called(self, what: Any, arguments: Any) -> Any:
        """Stand in for a call: dictionaries, storages and tensors are made, the rest is a record."""
        if not isinstance(arguments, tuple):
            raise RefusedPickleError("damaged (arguments of a call)")
        if not self.calls:
            raise RefusedPickleError("a storage that calls something")
        make = _MADE.get(what) if isinstance(what, Name) else None
        if make is None or (make is dict and arguments):
            return Record(what, arguments)
        if len(arguments) > MOST_PARTS:
            raise RefusedPickleError("damaged (arguments of a call)")
        if make not in (_storage_in_bytes, encoded):
            return make(*arguments)
        content = arguments[0]
        if id(content) not in self.made:
            self.made[id(content)] = content, make(*arguments)
        return self.made[id(content)][1]


# Tensors.


def _storage_in_bytes(content: Any) -> Storage:
    """A storage as `torch.save` wrote it before its zip files: five pickles, a count, the numbers."""
    if not isinstance(content, bytes):
        raise RefusedPickleError("a storage that is no bytes")
    stream = io.BytesIO(content)
    declared: list[tuple[str, int]] = []

    def note(identity: Any) -> str:
        dtype, _, count = read_identity(identity)
        declared.append((dtype, count))
        return dtype

    _run(stream, calls=False)  # magic number
    _run(stream, calls=False)  # version
    about = _run(stream, calls=False)
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise RefusedPickleError("numbers of a machine of the other byte order")
    _run(stream, note, calls=False)
    _run(stream, calls=False)  # keys
    if len(declared) != 1:
        raise RefusedPickleError("a storage that is no storage")
    dtype, count = declared[0]
    head = stream.read(8)
    size = count * itemsize(dtype)
    numbers = stream.read(size)
    if len(head) != 8 or struct.unpack("<q", head)[0] != count or len(numbers) != size:
        raise RefusedPickleError("a storage that is cut short")
    return Storage(dtype, bytearray(numbers))


_MADE: Mapping[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): dict,
    Name("torch._utils", "_rebuild_tensor_v2"): as_tensor,
    Name("torch._utils", "_rebuild_parameter"): lambda data, *_rest: data,
    Name("torch.storage", "_load_from_bytes"): _storage_in_bytes,
    Name("_codecs", "encode"): encoded,
}


def _read_zip(path: Path) -> Any:
    """Read what `torch.save` writes: `<name>/data.pkl`, and the numbers beside it."""
    with zipfile.ZipFile(path) as opened:
        roots = [name for name in opened.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise RefusedPickleError("a zip file that `torch.save` did not write")
        folder = roots[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in opened.namelist() and _member(opened, order) != b"little":
            raise RefusedPickleError("numbers of a machine of the other byte order")

        known: dict[str, Storage] = {}

        def numbers(identity: Any) -> Storage:
            dtype, key, count = read_identity(identity)
            if key not in known:
                known[key] = Storage(dtype, bytearray(_member(opened, f"{folder}data/{key}")))
            if len(known[key].content) != count * itemsize(dtype) or known[key].dtype != dtype:
                raise RefusedPickleError("a storage that is cut short")
            return known[key]

        return _run(io.BytesIO(_member(opened, roots[0])), numbers)


def _member(opened: zipfile.ZipFile, name: str) -> bytes:
    about = opened.getinfo(name)
    if about.compress_type != zipfile.ZIP_STORED:
        raise RefusedPickleError("a zip file that is compressed, which `torch.save` does not do")
    return opened.read(name)
