"""What a child process has to replace of what it inherits from ``os.fork``."""

import os
from collections.abc import Callable

__all__ = ["call_in_child"]


def call_in_child(function: Callable[[], object]) -> None:
    """Call a function in each child of a fork, from now on. There are none where the system cannot fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
