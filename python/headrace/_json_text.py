"""JSON as clients send it: decoded strictly, because what comes from one client is passed on to others."""

import json
from typing import Any, NoReturn

__all__ = ["decode"]


def decode(data: str | bytes) -> Any:
    """Do what ``json.loads`` does, but refuse what other parsers of JSON do not read: NaN and the infinities.

    Raises:
        ValueError: It is no JSON, or nested too deep.
    """
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
