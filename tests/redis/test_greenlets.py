"""In a process that gevent or eventlet has patched all threads are greenlets of one thread; a wait must not stop it."""

import importlib.util

import pytest
from tests.support.programs import run
from tests.support.servers import Server

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}

PROGRAM = """if True:
    import asyncio, sys, threading, time
    from headrace import Broadcaster, InMemoryChannelLayer, LayerUnavailable, RedisChannelLayer

    def between_turns_of_others(wait):
        # Runs a wait, and fails if nobody else had a turn meanwhile.
        turns, over = [], threading.Event()

        def take_turns():
            while not over.is_set():
                turns.append(time.sleep(0.001))

        others = threading.Thread(target=take_turns)
        others.start()
        try:
            wait()
        finally:
            over.set()
            others.join()
        assert turns

    def received(layer):
        # A receiver that waits for a sender of the same process.
        def send():
            while not layer.stats().waiters:
                time.sleep(0.001)
            layer.send_sync("late", {"type": "n"})

        sender = threading.Thread(target=send)
        sender.start()
        assert layer.receive_sync("late", 30) == {"type": "n"}
        sender.join()

    async def asynchronously(layer):
        receiving = asyncio.ensure_future(layer.receive("queue"))
        await layer.send("queue", {"type": "n"})
        assert await receiving == {"type": "n"}

    def refused():
        away = RedisChannelLayer(hosts=["redis://127.0.0.1:1"], send_timeout=0.2)
        try:
            away.group_send_sync("group", {"type": "n"}, confirm=True)
        except LayerUnavailable:
            return
        raise AssertionError("it was sent")

    hosts, prefix = sys.argv[1:2], sys.argv[2]
    redis = RedisChannelLayer(hosts=hosts, prefix=prefix)
    for layer in (InMemoryChannelLayer(), redis):
        layer.send_sync("queue", {"type": "n"})
        assert layer.receive_sync("queue", 30) == {"type": "n"}
        between_turns_of_others(lambda: received(layer))
        asyncio.run(asynchronously(layer))
    redis.group_add_sync("group", redis.new_channel_sync())
    assert redis.group_send_sync("group", {"type": "n"}, confirm=True).processes == 1
    between_turns_of_others(refused)
    Broadcaster(hosts=hosts).broadcast("topic", {"n": 1})
    print("done")
"""


@pytest.mark.parametrize("patch", PATCHES)
def test_greenlets_send_and_receive_while_others_run(redis_server: Server, redis_prefix: str, patch: str) -> None:
    if importlib.util.find_spec(patch) is None:
        pytest.skip(f"{patch} is not installed")
    ended = run(f"{PATCHES[patch]}\n{PROGRAM}", redis_server.url, redis_prefix)
    assert (ended.code, ended.lines) == (0, ["done"]), ended.errors
