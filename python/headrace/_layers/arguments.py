"""What an unknown argument of a layer may have been meant to be: ``CONFIG`` is written by hand."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar, cast

__all__ = ["meant", "suggests_arguments"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def meant(unknown: str, known: Iterable[str]) -> str:
    """Return a question for what is like a name, or nothing."""
    near = difflib.get_close_matches(unknown, list(known), n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


_Init: TypeAlias = Callable[Concatenate[_T, _P], None]


def suggests_arguments(init: _Init[_T, _P]) -> _Init[_T, _P]:
    """Have a constructor's error for an unknown argument name those like it."""
    known = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def suggesting(self: _T, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if unknown := [name for name in kwargs if name not in known]:
            hint = meant(unknown[0], known) or f"it knows {', '.join(map(repr, known))}"
            raise TypeError(
                f"{type(self).__name__}.__init__() got an unexpected keyword argument {unknown[0]!r}; {hint}"
            )
        init(self, *args, **kwargs)

    # The type of what functools.wraps gives has no place for self.
    return cast("_Init[_T, _P]", suggesting)
