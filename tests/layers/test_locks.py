"""Python never runs while the native side holds a lock: whatever it does there, it may come back.

Each program hangs if it does. They run in processes of their own, because a thread that waits for a native lock cannot
be interrupted.
"""

import pytest
from tests.support.programs import Ended, run

DONE = Ended(0, ["done"], "")

CAPACITY_RULE = """if True:
    from headrace import ChannelFull, InMemoryChannelLayer

    class Rule:
        def match(self, name):
            layer.stats()
            return name == "small"

    layer = InMemoryChannelLayer(channel_capacity={Rule(): 1})
    layer.group_add_sync("group", "small")
    for channel in ("small", "large"):
        layer.send_sync(channel, {"type": "n"})
    try:
        layer.send_sync("small", {"type": "n"})
    except ChannelFull:
        print("done")
"""

KEY = """if True:
    from headrace import InMemoryChannelLayer

    class Key(str):
        def __hash__(self):
            return hash("type")

        def __eq__(self, other):
            layer.stats()
            return str.__eq__(self, other)

    layer = InMemoryChannelLayer()
    layer._core.inbox("channel").own(1, "coalesce")
    for _ in range(3):
        layer.send_sync("channel", {Key("kind"): 1})
    print("done")
"""

ADD_READER = """if True:
    import asyncio
    from headrace import InMemoryChannelLayer

    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, *arguments):
            super().add_reader(*arguments)
            inbox.attend(print)

    async def receive():
        layer.send_sync("channel", {"type": "n"})
        return await anext(inbox)

    layer = InMemoryChannelLayer()
    inbox = layer._core.inbox("channel")
    inbox.attend(print)
    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(receive()) == {"type": "n"}
    print("done")
"""

DESTRUCTOR = """if True:
    import asyncio, sys
    from headrace import InMemoryChannelLayer
    from headrace.testing import ManualClock

    class Noticing:
        left = 0

        def __init__(self, *_):
            Noticing.left += 1

        def __deepcopy__(self, memo):
            return Noticing()

        def __del__(self):
            Noticing.left -= 1
            layer.stats()
            layer.send_sync("told", {"type": "gone"})

    def replaced(overflow):
        layer.close_channel("channel")
        layer._core.inbox("channel").own(1, overflow)
        for _ in range(2):
            layer.send_sync("channel", {"type": "n", "held": Noticing()})
        layer.close_channel("channel")

    clock = ManualClock()
    layer = InMemoryChannelLayer(capacity=1, clock=clock)
    for channel in ("channel", "other"):
        layer.group_add_sync("group", channel)
    ways = {
        "full": lambda: layer.group_send_sync("group", {"type": "n", "held": Noticing()}),
        "expired": lambda: (clock.advance(100), layer.stats()),
        "replaced": lambda: replaced("drop_old"),
        "coalesced": lambda: replaced("coalesce"),
        "flushed": lambda: asyncio.run(layer.flush()),
        "channel closed": lambda: (layer.close_channel("channel"), layer.close_channel("other")),
        "closed": lambda: asyncio.run(layer.close()),
    }
    layer.group_send_sync("group", {"type": "n", "held": Noticing()})
    assert Noticing.left == 1
    ways[sys.argv[1]]()
    asyncio.run(layer.flush())
    assert Noticing.left == 0
    print("done")
"""

RECEIVER = """if True:
    import asyncio, gc, weakref
    from headrace import InMemoryChannelLayer

    async def receive():
        try:
            await layer.receive("channel")
        finally:
            layer.stats()

    layer = InMemoryChannelLayer()
    for _ in range(3):
        loop = asyncio.new_event_loop()
        task = loop.create_task(receive())
        task._log_destroy_pending = False
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert layer.stats().waiters == 1
        loop.close()
        del task, loop
        gc.collect()
        assert layer.stats().waiters == 0
    print("done")
"""


@pytest.mark.parametrize("program", [CAPACITY_RULE, KEY, ADD_READER, RECEIVER], ids=["rule", "key", "loop", "receiver"])
def test_python_that_comes_back_to_the_layer_does_not_wait_for_itself(program: str) -> None:
    assert run(program) == DONE


@pytest.mark.parametrize("way", ["full", "expired", "replaced", "coalesced", "flushed", "channel closed", "closed"])
def test_the_destructor_of_a_message_may_use_the_layer(way: str) -> None:
    ended = run(DESTRUCTOR, way)
    assert (ended.code, ended.lines) == (0, ["done"]), ended.errors
