"""Public names: what a private module defines says that it is of the public module that users import it from."""

from collections.abc import Mapping
from types import FunctionType
from typing import Any

__all__ = ["name_publicly"]


def name_publicly(module: Mapping[str, Any]) -> None:
    """Have what a public module exports name that module in reprs, errors, logs and pickles.

    The price is that ``inspect.getsource`` does not find such a class. Only what a private module of headrace has
    defined is changed, and only once: the first public module counts.

    Args:
        module: The namespace of the module, as ``globals()`` gives it.
    """
    for name in module["__all__"]:
        thing = module[name]
        if isinstance(thing, type | FunctionType) and _is_private(thing.__module__):
            thing.__module__ = module["__name__"]


def _is_private(module: str) -> bool:
    return module.startswith("headrace.") and "._" in module
