"""What ``test_fork.py`` runs, each in an interpreter of its own: ``python fork_cases.py NAME``.

A process of the test run itself may have threads, and must not be forked then. Whatever is wrong ends a case with
an exception, in the child as in the parent.
"""

import asyncio
import builtins
import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import uvloop

from headrace.layers import InMemoryChannelLayer
from headrace.typing import Message

HELLO = {"type": "hello"}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def sockets() -> set[str]:
    """Name the open sockets of this process, by the system's numbers for them."""
    names = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue  # the directory's own, closed by now
    return {name for name in names if name.startswith("socket:")}


def in_child(check: Callable[[], object]) -> None:
    """Fork, run the check in the child, and wait for its good end."""
    pid = os.fork()
    if pid == 0:
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


async def all_wait(layer: InMemoryChannelLayer, count: int) -> None:
    """Return when so many receivers wait."""
    while layer.stats().waiters < count:
        await asyncio.sleep(0)


async def exchange(layer: InMemoryChannelLayer, channel: str = "channel") -> None:
    """Use a layer in all ways: ready messages, waiting tasks, groups, another thread."""
    await layer.send(channel, HELLO)
    assert await layer.receive(channel) == HELLO
    await layer.group_add("group", channel)
    for send in (
        functools.partial(layer.send, channel, HELLO),
        functools.partial(layer.group_send, "group", HELLO),
        functools.partial(asyncio.to_thread, layer.send_sync, channel, HELLO),
    ):
        task = asyncio.ensure_future(layer.receive(channel))
        await all_wait(layer, 1)
        await send()
        assert await task == HELLO
    await layer.group_discard("group", channel)


def is_empty(layer: InMemoryChannelLayer) -> bool:
    """Tell whether a layer is as new."""
    stats = layer.stats()
    fields = ("channels", "groups", "memberships", "waiters", "depth", "sent", "delivered")
    return not any(getattr(stats, name) for name in fields)


def the_child_has_an_empty_working_layer(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Fork between two runs of a loop, with tasks waiting, messages queued and messages on their way."""

    async def begin() -> list[asyncio.Task[Any]]:
        tasks = [asyncio.create_task(layer.receive(f"waiting{n}")) for n in range(3)]
        await all_wait(layer, 3)
        await layer.send("queued", HELLO)
        await layer.group_add("group", "queued")
        await layer.send("waiting0", HELLO)
        return tasks

    def child() -> None:
        assert is_empty(layer)
        assert layer.channels == {}
        assert layer.groups == {}
        layer.send_sync("channel", HELLO)
        assert layer.receive_sync("channel") == HELLO
        with asyncio.Runner(loop_factory=type(loop)) as runner:
            runner.run(exchange(layer))
            runner.run(exchange(layer, "waiting1"))
        gc.collect()

    tasks = loop.run_until_complete(begin())
    before = layer.stats()
    in_child(child)
    assert layer.stats() == before
    for n in (1, 2):
        layer.send_sync(f"waiting{n}", HELLO)
    assert loop.run_until_complete(asyncio.gather(*tasks)) == [HELLO] * 3
    assert layer.receive_nowait("queued") == HELLO
    assert layer.group_channels("group") == ["queued"]
    loop.run_until_complete(exchange(layer))


def no_wire_is_open_in_the_child(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Compare the sockets: those that came with the first receive are the layer's."""

    async def receive() -> None:
        task = asyncio.create_task(layer.receive("channel"))
        await all_wait(layer, 1)
        await layer.send("channel", HELLO)
        await task

    loop.run_until_complete(asyncio.sleep(0))
    before = sockets()
    loop.run_until_complete(receive())
    wires = sockets() - before
    assert wires

    def child() -> None:
        assert not sockets() & wires
        with asyncio.Runner() as runner:
            runner.run(exchange(layer))
        assert not sockets() & wires

    in_child(child)
    assert sockets() >= wires
    loop.run_until_complete(exchange(layer))


def a_fork_inside_a_running_loop(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Fork in a coroutine; the child uses what needs no loop, and its own loop in a thread."""

    def child() -> None:
        assert is_empty(layer)
        layer.group_add_sync("group", "channel")
        assert layer.group_send_sync("group", HELLO).delivered == 1
        assert layer.receive_nowait("channel") == HELLO
        thread = threading.Thread(target=asyncio.run, args=[exchange(layer)])
        thread.start()
        thread.join()
        assert layer.stats().delivered == 5

    async def main() -> None:
        task = asyncio.create_task(layer.receive("channel"))
        await all_wait(layer, 1)
        in_child(child)
        await layer.send("channel", HELLO)
        assert await task == HELLO

    loop.run_until_complete(main())
    loop.run_until_complete(exchange(layer))


def a_child_of_a_child(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Fork in the child of a fork."""

    def child() -> None:
        with asyncio.Runner() as runner:
            runner.run(exchange(layer))
        layer.send_sync("channel", HELLO)
        in_child(grandchild)
        assert layer.receive_nowait("channel") == HELLO

    def grandchild() -> None:
        assert is_empty(layer)
        with asyncio.Runner() as runner:
            runner.run(exchange(layer))

    loop.run_until_complete(exchange(layer))
    in_child(child)
    loop.run_until_complete(exchange(layer))


def a_child_that_ends_in_the_ordinary_way(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Let the child run through the end of the interpreter, which clears everything away."""
    task = loop.create_task(layer.receive("channel"))
    loop.run_until_complete(all_wait(layer, 1))
    layer.send_sync("queued", HELLO)
    pid = os.fork()
    if pid == 0:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        asyncio.run(exchange(layer))
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    layer.send_sync("channel", HELLO)
    assert loop.run_until_complete(task) == HELLO
    assert layer.receive_nowait("queued") == HELLO


def the_settings_stay(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Read the settings in the child, and use them."""
    layer = InMemoryChannelLayer(expiry=5, group_expiry=6, capacity=7, channel_capacity={"small*": 1}, strict=True)

    def child() -> None:
        assert (layer.expiry, layer.group_expiry, layer.capacity) == (5, 6, 7)
        assert layer.channel_stats("small1").capacity == 1
        try:
            layer.send_sync("channel", {"set": {1}})
        except TypeError:
            return
        raise AssertionError("the layer is not strict any more")

    in_child(child)


def a_closed_layer(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Close the layer in the child; the parent's goes on."""

    def child() -> None:
        asyncio.run(layer.close())

    task = loop.create_task(layer.receive("channel"))
    loop.run_until_complete(all_wait(layer, 1))
    in_child(child)
    layer.send_sync("channel", HELLO)
    assert loop.run_until_complete(task) == HELLO


def a_fork_beside_threads(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Fork while a thread waits in ``receive_sync`` and another runs a loop; the child inherits neither."""

    def child() -> None:
        assert is_empty(layer)
        layer.send_sync("sync", HELLO)
        assert layer.receive_nowait("sync") == HELLO
        asyncio.run(exchange(layer))

    received = []
    sleeping = threading.Thread(target=lambda: received.append(layer.receive_sync("sync")))
    looping = threading.Thread(target=lambda: received.append(loop.run_until_complete(layer.receive("async"))))
    for thread in (sleeping, looping):
        thread.start()
    asyncio.run(all_wait(layer, 2))
    with warnings.catch_warnings():
        # Python 3.12 and later say that a child of a process with threads may deadlock.
        warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)
        in_child(child)
    assert layer.stats().waiters == 2
    layer.send_sync("sync", HELLO)
    layer.send_sync("async", HELLO)
    for thread in (sleeping, looping):
        thread.join()
    assert received == [HELLO, HELLO]


def a_fork_while_a_thread_begins(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Fork while another thread looks up what is then kept for the process; the child does not wait for that thread."""
    importing, forked = threading.Event(), threading.Event()
    its_import = builtins.__import__

    def slow_import(name: str, *arguments: Any) -> Any:
        if name == "asyncio" and threading.current_thread() is looping:
            importing.set()
            forked.wait()
        return its_import(name, *arguments)

    def child() -> None:
        signal.alarm(60)  # ends one that waits for a thread it does not have
        asyncio.run(exchange(layer))

    received: list[Message] = []
    looping = threading.Thread(target=lambda: received.append(loop.run_until_complete(layer.receive("async"))))
    with patch.object(builtins, "__import__", slow_import), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)
        looping.start()
        assert importing.wait(20)
        in_child(child)
        forked.set()
    asyncio.run(all_wait(layer, 1))
    layer.send_sync("async", HELLO)
    looping.join()
    assert received == [HELLO]


def _use_the_layer_of_the_parent(layer: InMemoryChannelLayer) -> None:
    assert is_empty(layer)
    asyncio.run(exchange(layer))


def _use_a_layer_of_its_own() -> None:
    asyncio.run(exchange(InMemoryChannelLayer()))


def multiprocessing_fork(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Start processes as gunicorn and others do."""
    task = loop.create_task(layer.receive("channel"))
    loop.run_until_complete(all_wait(layer, 1))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_use_the_layer_of_the_parent, args=[layer]) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    layer.send_sync("channel", HELLO)
    assert loop.run_until_complete(task) == HELLO


def multiprocessing_spawn(loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer) -> None:
    """Start a process that imports the package anew."""
    loop.run_until_complete(exchange(layer))
    process = multiprocessing.get_context("spawn").Process(target=_use_a_layer_of_its_own)
    process.start()
    process.join()
    assert process.exitcode == 0
    loop.run_until_complete(exchange(layer))


CASES = [
    the_child_has_an_empty_working_layer,
    no_wire_is_open_in_the_child,
    a_fork_inside_a_running_loop,
    a_child_of_a_child,
    a_child_that_ends_in_the_ordinary_way,
    the_settings_stay,
    a_closed_layer,
    a_fork_beside_threads,
    a_fork_while_a_thread_begins,
    multiprocessing_fork,
    multiprocessing_spawn,
]


def main() -> None:
    """Run one case on one kind of loop with one way to wake."""
    name, loop_name, wake = sys.argv[1:]
    case = next(case for case in CASES if case.__name__ == name)
    loop = LOOPS[loop_name]()
    case(loop, InMemoryChannelLayer(wake="direct" if wake == "direct" else "future"))
    loop.close()
    print("done")  # read by the test


if __name__ == "__main__":
    main()
