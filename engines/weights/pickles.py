"""What a file of torch.save would do when it is loaded, found without doing it.

``torch.load(weights_only=True)`` runs no code of a file, but it believes the numbers in it: it
makes a storage as long as the pickle says, and lets it grow to what a tensor wants. So the pickle's
program is read here first, as data. Only what a dictionary of plain tensors needs is let through,
and every number is held against the size of the file. Nothing is imported, called or allocated for.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from engines.errors import ConversionError
from engines.weights.pickle_names import (
    AGAIN,
    ITEM_BYTES,
    SAVE_THE_STATE,
    STORAGES,
    listed,
    names_in,
    refuse_names,
    shown,
    steps_of,
)

LARGEST_PICKLE_BYTES: Final = 32 << 20
LEGACY_MAGIC: Final = b"l\xfc\x9cF\xf9 j\xa8P\x19"
"""The first thing in every file of torch.save that is no zip archive."""

DEEPEST: Final = 64
MOST_AXES: Final = 8
LARGEST_INTEGER_KEY: Final = 1 << 31
"""Optimisers number their parameters; larger keys are how a dictionary is made slow."""

PUSHED: Final = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
}
MADE: Final = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
}
TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, slots=True)
class Storage:
    """The numbers behind tensors: ``count`` items of a kind such as ``FloatStorage``."""

    key: str
    kind: str
    location: str
    count: int

    @property
    def size_bytes(self) -> int:
        return self.count * ITEM_BYTES[self.kind]


@dataclass(frozen=True, slots=True)
class Named:
    """Something that the pickle names, ``module name``; it was not looked up."""

    text: str


class Stored:
    """Stands for a tensor whose shape fits into its storage."""


class Made:
    """Stands for anything else that loading makes: a device, a set, bytes."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a pickle holds, with stand-ins for tensors, and where it ends in the file."""

    value: Any
    end: int
    storages: dict[str, Storage]


def inspect_pickle(data: bytes, start: int = 0) -> Inspection:
    """Read the pickle at ``start`` as torch.load would run it.

    Raises:
        ConversionError: it is damaged, wants to run more than a dictionary of tensors needs, or
            has a tensor that does not fit into its storage. The message does not name the file.
    """
    steps, end, damage = steps_of(data, start)
    refuse_names(names_in(steps))
    if damage:
        raise ConversionError(f"its pickle cannot be read ({shown(damage)}); {AGAIN}")
    machine = _Machine()
    try:
        for name, argument in steps:
            machine.step(name, argument)
        value = machine.stack.pop()
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ConversionError(f"its pickle is damaged; {AGAIN}") from error
    _refuse_deep(value)
    return Inspection(value, end, machine.storages)


class _Machine:
    """torch's restricted unpickler step by step, on stand-ins, and stricter."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.storages: dict[str, Storage] = {}
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in PUSHED:
            if name == "SHORT_BINSTRING" and not argument.isascii():
                raise ConversionError(
                    f"it was pickled with Python 2 and has text that is not ASCII; {SAVE_THE_STATE}"
                )
            stack.append(argument)
        elif name in MADE:
            made = MADE[name]
            stack.append(made() if callable(made) else made)
        elif name == "GLOBAL":
            stack.append(Named(argument))
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MARK":
            self._outer.append(stack)
            self.stack = []
        elif name == "TUPLE":
            items = self._since_mark()
            self.stack.append(tuple(items))
        elif name in TUPLES:
            first = len(stack) - TUPLES[name]
            if first < 0:
                raise IndexError(first)
            stack[first:] = [tuple(stack[first:])]
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else [stack.pop()]
            _of(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _set_items(self.stack[-1], items)
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments = _of(stack.pop(), tuple)
            stack[-1] = _called(_of(stack[-1], Named).text, arguments)
        elif name == "BUILD":
            state = _of(stack.pop(), dict)
            _of(stack[-1], OrderedDict)
            if list(state) != ["_metadata"]:
                raise ConversionError(f"a dictionary has attributes: {listed(state)}")
        elif name == "PROTO" and argument > 2:
            raise ConversionError(
                f"it is in pickle protocol {argument}, expected 2: load it and save it again with"
                " torch.save without pickle_protocol"
            )
        elif name not in ("PROTO", "STOP"):
            raise ConversionError(f"its pickle has the step {name}, which weights do not need")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._outer.pop()
        return items

    def _storage(self, found: Any) -> Storage:
        what, kind, key, location, count, *view = _of(found, tuple)
        if what != "storage" or view not in ([], [None]):
            raise ConversionError("it refers to more than storages; load it and save it again")
        kind = STORAGES.get(_of(kind, Named).text)
        if kind is None or not _is_count(count):
            raise ConversionError(f"storage {shown(_of(key, str))} has no usable kind or size")
        storage = Storage(_of(key, str), kind, _of(location, str), count)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ConversionError(f"storage {shown(key)} is described in two ways")
        return storage


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ConversionError(
            f"its pickle is damaged: expected {kind.__name__}, found {type(value).__name__}"
        )
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _set_items(target: Any, items: list[Any]) -> None:
    if type(target) not in (dict, OrderedDict) or len(items) % 2:
        raise ConversionError("its pickle is damaged: it fills what is no dictionary")
    for key, value in zip(items[::2], items[1::2]):
        # Other keys could be made to hash for ever, or to crash the interpreter when hashed.
        if type(key) is not str and not (type(key) is int and abs(key) < LARGEST_INTEGER_KEY):
            raise ConversionError(f"a dictionary has a key that is no text: {type(key).__name__}")
        target[key] = value


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return a stand-in for what the call would make; refuse what weights do not need."""
    if name == "collections OrderedDict":
        found: OrderedDict[Any, Any] = OrderedDict()
        for pair in _of(arguments[0], list) if arguments else ():
            _set_items(found, _of(pair, list))
        return found
    if name == "torch._utils _rebuild_parameter":
        tensor, requires_grad, hooks = arguments
        _of(requires_grad, bool)
        _refuse_hooks(hooks)
        return _of(tensor, Stored)
    if name in ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"):
        storage, offset, size, stride, *more = arguments
        if more:
            requires_grad, hooks, *metadata = more
            _of(requires_grad, bool)
            _refuse_hooks(hooks)
            if metadata not in ([], [None], [{}]):
                raise ConversionError("it has conjugated or negated views; save it again")
        _refuse_outside(_of(storage, Storage), offset, _of(size, tuple), _of(stride, tuple))
        return Stored()
    if name == "torch Size":
        (size,) = arguments
        return tuple(_of(axis, int) for axis in _of(size, tuple))
    if not _is_plain_call(name.replace("__builtin__", "builtins"), arguments):
        raise ConversionError(f"its pickle calls {shown(name.replace(' ', '.'))} in an unusual way")
    return Made()


def _is_plain_call(name: str, arguments: tuple[Any, ...]) -> bool:
    kinds = [type(argument) for argument in arguments]
    if name == "torch device":
        return kinds in ([str], [str, int])
    if name == "_codecs encode":
        return kinds == [str, str] and arguments[1] == "latin1"
    if name == "collections Counter":
        return kinds in ([], [dict])
    # Items that are no text could be made to hash for ever.
    return name == "builtins set" and kinds == [list] and all(type(i) is str for i in arguments[0])


def _refuse_hooks(hooks: Any) -> None:
    if hooks is not None and (type(hooks) not in (dict, OrderedDict) or hooks):
        raise ConversionError("a tensor has hooks, which would be run")


def _refuse_outside(
    storage: Storage, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]
) -> None:
    """A tensor may see its storage only, each item at most once, and have few axes."""
    if not (
        len(size) == len(stride) <= MOST_AXES and all(map(_is_count, (offset, *size, *stride)))
    ):
        raise ConversionError(f"a tensor has no usable shape; {AGAIN}")
    items, last = 1, offset
    for length, step in zip(size, stride):
        items *= max(length, 1)  # an axis without items must not hide a long one
        last += max(length - 1, 0) * step
    if items > max(storage.count, 1) or (0 not in size and last >= storage.count):
        raise ConversionError(
            f"a tensor of shape {shown(size)}, strides {shown(stride)}, from item {offset} on does"
            f" not fit into its storage of {storage.count:,} items (an expanded tensor?)"
        )


def _refuse_deep(value: Any) -> None:
    level, seen = [value], set[int]()
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, (dict, list, tuple)) and id(item) not in seen:
                seen.add(id(item))
                inner.extend(item.values() if isinstance(item, dict) else item)
        level = inner
        if not level:
            return
    raise ConversionError(f"it is nested more than {DEEPEST} deep")
