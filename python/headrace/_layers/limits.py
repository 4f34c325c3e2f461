"""Capacities and times as settings of channels_redis have them: text of an environment variable, 0 for no limit."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace._layers.base import MAX_SECONDS, LayerOptions

__all__ = ["Limits", "limits_of"]


@dataclass(frozen=True)
class Limits:
    """How much is kept, and for how long; not checked yet."""

    expiry: Any
    group_expiry: Any
    capacity: Any
    channel_capacity: Any
    capacity_bytes: Any
    history_bytes: Any


def limits_of(options: LayerOptions) -> Limits:
    """Read numbers that are text, and what 0 stands for: no expiry of memberships, no limit of messages or of bytes."""
    channel_capacity, group_expiry = options.channel_capacity, _number(options.group_expiry)
    if isinstance(channel_capacity, Mapping):
        channel_capacity = {pattern: _unlimited(_number(value)) for pattern, value in channel_capacity.items()}
    return Limits(
        _number(options.expiry),
        MAX_SECONDS if _is_zero(group_expiry) else group_expiry,
        _unlimited(_number(options.capacity)),
        channel_capacity,
        _unlimited(_number(options.capacity_bytes)),
        _unlimited(_number(options.history_bytes)),
    )


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"\s*\d+\s*", value, re.ASCII):
        return int(value)
    return float(value) if re.fullmatch(r"\s*\d*\.\d+\s*", value, re.ASCII) else value


def _unlimited(value: Any) -> Any:
    return sys.maxsize if _is_zero(value) else value


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0
