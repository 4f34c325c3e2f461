"""How many messages a client may send: a token bucket for each connection."""

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["OVER_RATE", "OverRate", "Rate", "RateExceeded", "TokenBucket", "parse_rate"]

OverRate = Literal["drop", "close"]
"""What becomes of a message that is over the rate."""

OVER_RATE = ("drop", "close")

_FORM = re.compile(r"([1-9][0-9]{0,8})/([sm])", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0}


class RateExceeded(Exception):
    """The client has sent more than it may, and its connection is to be closed for that."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a class says of its clients.

    Attributes:
        text: The rate as it was given.
        burst: How many messages may come at once.
        per_second: How many may come in a second, in the long run.
        closes: Whether a message over the rate ends the connection.
    """

    text: str
    burst: int
    per_second: float
    closes: bool


class TokenBucket:
    """What one client may still send. It begins full.

    Args:
        rate: How much fits, and how fast it is filled.
        now: The time, in seconds of a clock that does not go back.
    """

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens: float = rate.burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take a token for one message; return False if there is none."""
        rate = self._rate
        tokens = min(rate.burst, self._tokens + (now - self._at) * rate.per_second)
        self._at = now
        allowed = tokens >= 1
        self._tokens = tokens - 1 if allowed else tokens
        return allowed


def parse_rate(argument: str, text: object, overflow: object) -> Rate | None:
    """Read the setting ``rate_limit``.

    Args:
        argument: What an error names: the setting, with its class.
        text: The rate, such as ``"20/s"``; None for no limit.
        overflow: One of ``OVER_RATE``.

    Raises:
        TypeError: The rate is no str.
        ValueError: It is none of the two forms, or ``overflow`` is none of its values.
    """
    if overflow not in OVER_RATE:
        raise ValueError(f"{argument}_overflow must be one of 'drop', 'close', got {overflow!r}")
    if text is None:
        return None
    expected = f"{argument} must be messages per second or per minute, such as '20/s' or '300/m'"
    if not isinstance(text, str):
        raise TypeError(f"{expected}, got {text!r}")
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{expected}, got {text!r}")
    burst = int(found[1])
    return Rate(text, burst, burst / _SECONDS[found[2]], overflow == "close")
