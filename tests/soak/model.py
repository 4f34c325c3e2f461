"""What a process may hold when all its clients have gone, and when that is too much."""

from collections.abc import Sequence
from dataclasses import dataclass

# What one broadcast carries.
TEXT = "x" * 20_000
# What the allocators of Python and of Rust keep differs from one time to the next by so much, and no more.
SLACK = 0.10
SPARE = 8 << 20
# The first rounds fill caches and pools.
WARM = 2


@dataclass(frozen=True)
class Held:
    """What is held at one moment.

    Attributes:
        memory: Resident, in bytes.
        tasks: Of the event loop.
        descriptors: Open files and sockets.
        channels: Of the layer.
        groups: Of the layer.
        messages: That wait in the layer.
        keys: On the Redis server.
    """

    memory: int
    tasks: int
    descriptors: int
    channels: int
    groups: int
    messages: int
    keys: int


def faults(rounds: Sequence[Held]) -> list[str]:
    """Say what has grown from the first rounds to the last, given what was held after each."""
    if len(rounds) <= WARM:
        return []
    warm, last = rounds[:WARM], rounds[-1]
    found = []
    for name in ("tasks", "descriptors", "channels", "groups", "messages", "keys"):
        before = max(getattr(held, name) for held in warm)
        if (after := getattr(last, name)) > before:
            found.append(f"{name} grew from {before} to {after}")
    before = max(held.memory for held in warm)
    if last.memory > before * (1 + SLACK) + SPARE:
        found.append(f"memory grew from {before >> 20} to {last.memory >> 20} MiB")
    return found
