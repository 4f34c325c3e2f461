"""What tests of real-time code need: time that moves when it is told to."""

from headrace._core import ManualClock

__all__ = ["ManualClock"]
