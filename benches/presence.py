"""What does it cost to tell a group who is present: an entry, a list, its memory, and what many joins send?

``python -m benches.presence`` prints the best of a few rounds of processor time each: other work on the machine only
adds. The memory of an entry is what the process grows by in a process of its own.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from headrace.layers import InMemoryChannelLayer
from headrace.testing import ManualClock

GROUP = "room"
META = {"name": "Ada"}
ROUNDS, TIMES = 15, 5_000
LISTED = 1_000
JOINS = 10_000
ENTRIES = 100_000


def layer_with(clock: ManualClock | None = None, **rule: object) -> InMemoryChannelLayer:
    """Make a layer whose groups tell who is present."""
    return InMemoryChannelLayer(presence={"*": rule}, capacity=1_000, clock=clock)


def best(times: int, what: Callable[[], object]) -> float:
    """Call a function so many times in each round; return the microseconds of a call in the best round."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            what()
        rounds.append((time.process_time() - start) / times * 1e6)
    return min(rounds)


def show(name: str, value: float, unit: str) -> None:
    """Print one result."""
    print(f"{name:52} {value:9.2f} {unit}", flush=True)


def entries() -> None:
    """Print what an entry costs whoever is present, and a list whoever reads it."""
    layer = layer_with(ManualClock(), linger=0)
    channel = layer.new_channel_sync()
    layer.group_add_sync(GROUP, channel)
    # A room in which somebody is: in an empty one each call would begin and end its list.
    layer.presence_add_sync(GROUP, layer.new_channel_sync(), key="user.1", meta=META)

    def add_and_discard() -> None:
        layer.presence_add_sync(GROUP, channel, key="user.7", meta=META)
        layer.presence_discard_sync(GROUP, channel)

    def join_and_leave() -> None:
        layer.group_add_sync(GROUP, channel)
        layer.group_discard_sync(GROUP, channel)

    show("presence_add and presence_discard of a member", best(TIMES, add_and_discard), "us")
    show("group_add and group_discard, to compare", best(TIMES, join_and_leave), "us")
    # The same two calls, with no Python between them and the native side.
    add, discard = layer._core.presence_add, layer._core.presence_discard

    def native() -> None:
        add(GROUP, channel, "user.7", META)
        discard(GROUP, channel)

    show("the same without the methods in Python", best(TIMES, native), "us")


def lists() -> None:
    """Print what it costs to read a list."""
    clock = ManualClock()
    layer = layer_with(clock)
    for number in range(LISTED):
        layer.presence_add_sync(GROUP, layer.new_channel_sync(), key=f"user.{number}", meta=META)
    clock.advance(1)
    assert len(layer.presence_sync(GROUP).entries) == LISTED
    show(f"presence() of {LISTED:,}", best(20, lambda: layer.presence_sync(GROUP)), "us")
    show("presence_count()", best(TIMES, lambda: layer.presence_count_sync(GROUP)), "us")


def joins() -> None:
    """Print how many messages a member gets when many come in one second, and what the process does for them."""
    clock = ManualClock()
    layer = layer_with(clock, interval=0.5, max=JOINS)
    channels = []
    start = time.process_time()
    for _ in range(100):
        for _ in range(JOINS // 100):
            channels.append(layer.new_channel_sync())
            layer.presence_add_sync(GROUP, channels[-1], key=f"user.{len(channels)}", meta=META)
        clock.advance(0.01)
    clock.advance(0.5)
    seconds = time.process_time() - start
    got = Counter(layer.channel_stats(channel).depth for channel in channels)
    show(f"messages for each member of {JOINS:,} joins, at most", max(got), "")
    show("processor time of all that", seconds, "s")


def resident() -> int:
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def grow(what: str) -> None:
    """Make many members, present or not; print how much the process has grown for each."""
    clock = ManualClock()
    layer = layer_with(clock, max=ENTRIES)
    channels = [layer.new_channel_sync() for _ in range(ENTRIES)]
    before = resident()
    for number, channel in enumerate(channels):
        if what == "present":
            layer.presence_add_sync(GROUP, channel, key=f"user.{number}", meta=META)
        else:
            layer.group_add_sync(GROUP, channel)
    print((resident() - before) / ENTRIES)


def memory() -> None:
    """Print how much more a member that is present takes."""
    grown = {}
    for what in ("members", "present"):
        command = [sys.executable, "-m", "benches.presence", "--grow", what]
        grown[what] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    show("bytes of an entry, beyond its membership", grown["present"] - grown["members"], "")


def main() -> None:
    """Measure all, or grow for a measurement."""
    parser = argparse.ArgumentParser(prog="python -m benches.presence", description=__doc__)
    parser.add_argument("--grow", choices=["members", "present"], help=argparse.SUPPRESS)
    what = parser.parse_args().grow
    if what is not None:
        grow(what)
        return
    print(f"CPython {sys.version.split()[0]}")
    entries()
    lists()
    joins()
    memory()


if __name__ == "__main__":
    main()
