"""When settings are equal, whatever they hold: a function that is written in place is another one each time."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

__all__ = ["key_of"]

_DEPTH = 8
"""How deep values are looked into; what is below is equal to itself alone. Some hold themselves."""


def key_of(settings: Mapping[str, Any]) -> Hashable:
    """Return what is equal for equal settings, in whichever order they are given.

    It keeps what the settings hold, so that nothing else can be taken for it.
    """
    # Of their patterns the first that matches counts.
    ordered = {"channel_capacity", "history", "presence"}
    names = sorted(settings, key=str)
    return tuple((name, _frozen(settings[name], _DEPTH, ordered=name in ordered)) for name in names)


class _Object:
    """An object that does not say what it equals: it is itself, or another of its class with the state that it had."""

    __slots__ = ("_state", "_value")

    def __init__(self, value: object, depth: int) -> None:
        self._value = value
        # As it is now: that of a provider of passwords, say, changes when it is asked.
        state = getattr(value, "__dict__", None)
        self._state = None if state is None or not depth else _frozen(state, depth)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Object):
            return NotImplemented
        if self._value is other._value:
            return True
        alike = type(self._value) is type(other._value) and self._state is not None
        return alike and self._state == other._state

    def __hash__(self) -> int:
        return hash(type(self._value))


def _frozen(value: Any, depth: int, *, ordered: bool = False) -> Hashable:
    if depth <= 0:
        return _Object(value, 0)
    if isinstance(value, Mapping):
        items = [(_frozen(key, depth - 1), _frozen(item, depth - 1)) for key, item in value.items()]
        return tuple(items) if ordered else frozenset(items)
    parts = _parts(value)
    if parts is not None:
        return tuple(_frozen(part, depth - 1) for part in parts)
    return (type(value), value) if _says_what_it_equals(value) else _Object(value, depth - 1)


def _parts(value: Any) -> Sequence[Any] | None:
    """Return what makes two values equal, if it is not the values themselves."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return value.__code__, _Object(value.__globals__, 0), cells, value.__defaults__, value.__kwdefaults__
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    return None


def _says_what_it_equals(value: Any) -> bool:
    if isinstance(value, type | ModuleType):
        return True
    equality: Any = type(value).__eq__
    try:
        hash(value)
    except TypeError:
        return False
    return equality is not object.__eq__


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put there yet
        return None
