"""Plain channels: queues on the server, of which each message goes to exactly one receiver in the fleet."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.peers import Peer
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace.exceptions import ChannelEmpty, ForeignChannel
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]
PassTime = Callable[[float], None]


def length(server: Server, prefix: str, channel: str = "work") -> int:
    count: int = server.cli("LLEN", f"{prefix}:q:{{{channel}}}")
    return count


def keys(server: Server, prefix: str) -> list[str]:
    found: list[str] = server.cli("KEYS", f"{prefix}:*")
    return sorted(found)


def outcomes(sends: list[Any]) -> Counter[str]:
    """Count how each send ended."""
    return Counter(
        "sent" if error is None else type(error).__name__ for error in (send.exception(SECONDS) for send in sends)
    )


class TestDelivery:
    def test_each_message_goes_to_one_receiver_of_all_processes(self, make_peer: MakePeer) -> None:
        receivers, senders = [make_peer(capacity=1000) for _ in range(3)], [make_peer(capacity=1000) for _ in range(2)]
        for peer in receivers:
            peer.collect("work")
        sends = [peer.start("send", "work", {"n": i, "from": s}) for i in range(150) for s, peer in enumerate(senders)]
        assert outcomes(sends) == {"sent": 300}
        eventually(lambda: sum(len(peer.collected("work")) for peer in receivers) >= 300, "all came")
        came = Counter((message["from"], message["n"]) for peer in receivers for message in peer.collected("work"))
        assert came == Counter((s, i) for s in range(2) for i in range(150))

    async def test_each_message_goes_to_one_receiver_of_all_threads(
        self, make_layer: MakeLayer, make_peer: MakePeer
    ) -> None:
        layer, peer, came = make_layer(capacity=1000), make_peer(capacity=1000), list[int]()

        def receive() -> None:
            while (number := layer.receive_sync("work", SECONDS)["n"]) >= 0:
                came.append(number)

        threads = [threading.Thread(target=receive) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in [*range(200), *[-1] * 4]:
            await asyncio.to_thread(peer.call, "send", "work", {"n": number})
        for thread in threads:
            await asyncio.to_thread(thread.join, SECONDS)
        assert sorted(came) == list(range(200))

    def test_one_receiver_gets_the_messages_of_one_sender_in_order(self, make_peer: MakePeer) -> None:
        sender, receiver = make_peer(capacity=1000), make_peer()
        receiver.collect("work")
        sends = [sender.start("send", "work", {"n": number}) for number in range(300)]
        assert outcomes(sends) == {"sent": 300}
        eventually(lambda: len(receiver.collected("work")) == 300, "all came")
        assert [message["n"] for message in receiver.collected("work")] == list(range(300))

    async def test_receivers_need_not_wait_for_the_next_look(self, make_layer: MakeLayer) -> None:
        """A wake-up that comes while a receiver asks for entries counts: a look is a second apart."""
        layers = [make_layer(), make_layer()]
        slow = 0
        for number in range(300):
            began = time.monotonic()
            waiting = [asyncio.create_task(layers[i % 2].receive("work")) for i in range(number % 3 + 1)]
            await asyncio.sleep(0)
            for _ in waiting:
                await layers[number % 2].send("work", {"n": number})
            assert await asyncio.gather(*waiting) == [{"n": number}] * len(waiting)
            slow += time.monotonic() - began > 0.5
        # It was one in ten, and the machine may be busy.
        assert slow <= 12

    def test_a_message_waits_for_a_receiver_that_comes_later(self, make_peer: MakePeer) -> None:
        make_peer().call("send", "work", {"n": 1})
        assert make_peer().call("receive", "work") == {"n": 1}

    def test_a_sender_that_is_gone_has_left_its_messages(self, make_peer: MakePeer) -> None:
        sender = make_peer()
        sender.call("send", "work", {"n": 1})
        sender.kill()
        assert make_peer().call("receive", "work") == {"n": 1}

    def test_a_process_takes_no_more_than_it_has_receivers(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        sender, receiver = make_peer(), make_peer()
        for number in range(10):
            sender.call("send", "work", {"n": number})
        assert receiver.call("receive", "work") == {"n": 0}
        assert length(redis_server, redis_prefix) == 9

    def test_a_name_with_an_exclamation_mark_and_no_process_is_sent_to_and_nobody_receives_from_it(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        make_peer().call("send", "odd.0123!name", {"n": 1})
        assert length(redis_server, redis_prefix, "odd.0123!name") == 1
        for how in ("receive", "receive_sync", "receive_nowait"):
            with pytest.raises(ForeignChannel, match=r"nothing comes here for 'odd\.0123!name'"):
                make_peer().call(how, "odd.0123!name")


class TestOtherWaysToReceive:
    def test_receive_many_takes_what_is_there_and_waits_if_there_is_nothing(self, make_peer: MakePeer) -> None:
        sender, receiver = make_peer(), make_peer()
        for number in range(5):
            sender.call("send", "work", {"n": number})
        assert receiver.call("receive_many", "work", 3) == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert receiver.call("receive_many", "work", 100) == [{"n": 3}, {"n": 4}]
        waiting = receiver.start("receive_many", "work", 100)
        sender.call("send", "work", {"n": 5})
        assert waiting.result(SECONDS) == [{"n": 5}]

    def test_receive_nowait_asks_the_server(self, make_peer: MakePeer) -> None:
        sender, receiver = make_peer(), make_peer()
        with pytest.raises(ChannelEmpty):
            receiver.call("receive_nowait", "work")
        sender.call("send", "work", {"n": 1})
        assert receiver.call("receive_nowait", "work") == {"n": 1}
        with pytest.raises(ChannelEmpty):
            receiver.call("receive_nowait", "work")

    async def test_receive_sync_waits_for_another_process(self, layer: RedisChannelLayer, make_peer: MakePeer) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(layer.receive_sync, "work", 0.05)
        waiting = asyncio.create_task(asyncio.to_thread(layer.receive_sync, "work", SECONDS))
        await asyncio.to_thread(make_peer().call, "send", "work", {"n": 1})
        assert await waiting == {"n": 1}

    def test_close_channel_drops_what_waits_for_the_whole_fleet(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        one, two = make_peer(), make_peer()
        one.call("group_add", "jobs", "work")
        for number in range(3):
            one.call("send", "work", {"n": number})
        # The first thing that it does: it has to find out who the members are.
        two.call("close_channel", "work")
        eventually(lambda: length(redis_server, redis_prefix) == 0, "it is dropped")
        eventually(lambda: two.stats()["dropped_other"] == 3, "it is counted")
        eventually(lambda: one.call("group_count", "jobs") == 0, "it has left its groups")
        one.call("send", "work", {"n": 3})
        assert two.call("receive", "work") == {"n": 3}


class TestCapacity:
    def test_it_is_exact_under_concurrent_senders(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        peers = [make_peer(capacity=10) for _ in range(3)]
        sends = [peer.start("send", "work", {"n": number}) for number in range(20) for peer in peers]
        assert outcomes(sends) == {"sent": 10, "ChannelFull": 50}
        assert length(redis_server, redis_prefix) == 10
        assert sum(peer.stats()["sent"] for peer in peers) == 10
        assert sum(peer.stats()["dropped_full"] for peer in peers) == 50

    def test_it_is_that_of_the_first_matching_glob(self, make_peer: MakePeer) -> None:
        peer = make_peer(capacity=1, channel_capacity={"work.*": 3})
        sends = [peer.start("send", channel, {}) for channel in ["work.a"] * 5 + ["other"] * 5]
        assert outcomes(sends) == {"sent": 4, "ChannelFull": 6}

    def test_a_message_that_was_taken_makes_room(self, make_peer: MakePeer) -> None:
        peer = make_peer(capacity=2)
        for _ in range(10):
            assert outcomes([peer.start("send", "work", {"n": n}) for n in range(3)]) == {"sent": 2, "ChannelFull": 1}
            assert len(peer.call("receive_many", "work", 5)) == 2

    def test_group_send_counts_a_full_queue_and_raises_nothing(self, make_peer: MakePeer) -> None:
        peer = make_peer(capacity=1)
        for channel in ("work", "other"):
            peer.call("group_add", "jobs", channel)
        peer.call("send", "work", {"n": 1})
        report = peer.call("group_send", "jobs", {"n": 2})
        assert (report["delivered_here"], report["dropped_full"]) == (1, 1)

    def test_what_has_expired_does_not_count_and_is_counted_as_dropped(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str, pass_time: PassTime
    ) -> None:
        peer = make_peer(capacity=3, expiry=0.3)
        for number in range(3):
            peer.call("send", "work", {"n": number})
        assert length(redis_server, redis_prefix) == 3
        pass_time(0.4)
        peer.call("send", "work", {"n": 4})
        assert peer.stats()["dropped_expired"] == peer.link()["queue_expired"] == 3
        assert peer.call("receive", "work") == {"n": 4}

    def test_it_is_exact_when_several_find_the_same_expired_messages(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str, pass_time: PassTime
    ) -> None:
        short = make_peer(capacity=10, expiry=0.3)
        # The queue stays, and two of its messages do not.
        peers = [make_peer(capacity=10) for _ in range(3)]
        for number in range(2):
            short.call("send", "work", {"n": number})
        for number in range(8):
            peers[0].call("send", "work", {"n": number})
        assert length(redis_server, redis_prefix) == 10
        pass_time(0.4)
        sends = [peer.start("send", "work", {"n": number}) for number in range(20) for peer in peers]
        assert outcomes(sends) == {"sent": 2, "ChannelFull": 58}
        assert length(redis_server, redis_prefix) == 10
        assert sum(peer.link()["queue_expired"] for peer in peers) == 2

    def test_an_expired_message_is_not_delivered(self, make_peer: MakePeer, pass_time: PassTime) -> None:
        short, peer = make_peer(expiry=0.1), make_peer()
        short.call("send", "work", {"n": 1})
        peer.call("send", "work", {"n": 2})
        pass_time(0.2)
        assert peer.call("receive", "work") == {"n": 2}
        assert peer.link()["queue_expired"] == 1


class TestLeavingReceivers:
    async def _hold(self, layer: RedisChannelLayer, peer: Peer) -> None:
        """Cancel a receiver that a message is on its way to: the loop stands still until it has one."""
        task = asyncio.create_task(layer.receive("work"))
        await asyncio.to_thread(eventually, lambda: layer.channel_stats("work").waiters == 1, "it waits")
        peer.call("send", "work", {"n": 1})
        eventually(lambda: layer.channel_stats("work").waiters == 0, "it is on its way")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_their_message_goes_to_the_next_receiver_here(
        self, layer: RedisChannelLayer, make_peer: MakePeer
    ) -> None:
        await self._hold(layer, make_peer())
        assert await layer.receive("work") == {"n": 1}
        assert layer.stats().connection.handed_back == 0

    async def test_their_message_goes_back_to_the_queue(self, layer: RedisChannelLayer, make_peer: MakePeer) -> None:
        peer = make_peer()
        await self._hold(layer, peer)
        assert await asyncio.to_thread(peer.call, "receive", "work") == {"n": 1}
        await asyncio.to_thread(eventually, lambda: layer.stats().connection.handed_back == 1, "it is counted")
        assert layer.stats().delivered == 0

    async def test_their_message_goes_back_when_the_layer_is_closed(
        self, layer: RedisChannelLayer, make_peer: MakePeer
    ) -> None:
        peer = make_peer()
        await self._hold(layer, peer)
        await layer.close()
        assert await asyncio.to_thread(peer.call, "receive", "work") == {"n": 1}

    def test_a_receiver_of_a_process_that_ended_is_none(self, make_peer: MakePeer) -> None:
        dead, sender, alive = make_peer(), make_peer(), make_peer()
        dead.start("receive", "work")
        eventually(lambda: dead.call("channel_stats", "work")["waiters"] == 1, "it waits")
        dead.kill()
        sender.call("send", "work", {"n": 1})
        assert alive.call("receive", "work") == {"n": 1}


class TestBrokenConnections:
    def test_what_was_taken_and_never_arrived_is_found_when_the_connection_is_back(
        self, make_peer: MakePeer, start_proxy: Callable[[Server], Proxy], redis_server: Server, redis_prefix: str
    ) -> None:
        proxy = start_proxy(redis_server)
        sender, receiver = make_peer(), make_peer(hosts=[proxy.url])
        waiting = receiver.start("receive", "work")
        eventually(lambda: receiver.link()["state"] == "up", "it is connected")
        # As if the server had carried out its LMOVE, and the answer had been lost.
        sender.call("send", "elsewhere", {"n": 1})
        taken = f"{redis_prefix}:t:{{work}}:{receiver.call('client_prefix')}"
        redis_server.cli("LMOVE", f"{redis_prefix}:q:{{elsewhere}}", taken, "LEFT", "RIGHT", decode=False)
        proxy.cut()
        assert waiting.result(SECONDS) == {"n": 1}
        eventually(lambda: redis_server.cli("EXISTS", taken) == 0, "it is confirmed")

    def test_nothing_is_lost_or_doubled_when_the_receiver_is_cut_off_again_and_again(
        self, make_peer: MakePeer, start_proxy: Callable[[Server], Proxy], redis_server: Server
    ) -> None:
        proxy = start_proxy(redis_server)
        sender, receiver = make_peer(capacity=1000), make_peer(hosts=[proxy.url])
        receiver.collect("work")
        for number in range(300):
            sender.call("send", "work", {"n": number})
            if number % 30 == 29:
                proxy.cut()
        eventually(lambda: len(receiver.collected("work")) >= 300, "all came")
        assert sorted(message["n"] for message in receiver.collected("work")) == list(range(300))

    def test_a_killed_process_leaves_what_it_took_for_the_time_of_the_expiry_only(
        self, peers: Any, start_redis: Callable[..., Server], redis_prefix: str
    ) -> None:
        # It cannot confirm, so the list of what it took stays, as when it is killed before.
        server = start_redis(users={"app": "on >secret ~* &* +@all -lrem"})
        settings = {"hosts": [server.url_for(("app", "secret"))], "prefix": redis_prefix, "expiry": 90}
        with peers.peer(**settings) as peer:
            peer.call("send", "before", {"n": 1})
            assert peer.call("receive", "before") == {"n": 1}
            waiting = peer.start("receive", "after")
            eventually(lambda: peer.call("channel_stats", "after")["waiters"] == 1, "it waits")
            peer.call("send", "after", {"n": 2})
            assert waiting.result(SECONDS) == {"n": 2}
            process = peer.call("client_prefix")
            peer.kill()
        for channel in ("before", "after"):
            assert 0 < server.cli("TTL", f"{redis_prefix}:t:{{{channel}}}:{process}") <= 91, channel


class TestFlush:
    def test_it_removes_this_prefix_and_no_other(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        one, two, longer = make_peer(), make_peer(), make_peer(prefix=f"{redis_prefix}:q")
        redis_server.cli("SET", f"{redis_prefix}:q:of-somebody-else", "kept")
        redis_server.cli("SET", f"{redis_prefix}x", "kept")
        for peer in (one, longer):
            for channel in ("work", "more.work", "work!x"):
                peer.call("send", channel, {"n": 1})
            peer.call("group_add", "jobs", "work")
        others = [key for key in keys(redis_server, f"{redis_prefix}:q") if "{" not in key or ":q:q:" in key]
        before = redis_server.commands_seen()
        two.call("flush")
        seen = redis_server.commands_seen() - before
        assert not seen.keys() & {"keys", "scan", "eval", "flushdb", "flushall", "unlink"}
        assert keys(redis_server, redis_prefix) == others
        assert redis_server.cli("GET", f"{redis_prefix}x") == "kept"
        assert longer.call("receive", "work") == {"n": 1}
        assert two.link()["queue_dropped"] == 3

    def test_receivers_that_wait_go_on_waiting(self, make_peer: MakePeer) -> None:
        one, two = make_peer(), make_peer()
        channel = one.call("new_channel")
        waiting = {name: one.start("receive", name) for name in (channel, "work")}
        eventually(lambda: one.stats()["waiters"] == 2, "they wait")
        one.call("group_add", "room", channel)
        two.call("flush")
        eventually(lambda: one.call("group_count", "room") == 0, "it was told")
        for number, (name, receiver) in enumerate(waiting.items()):
            two.call("send", name, {"n": number})
            assert receiver.result(SECONDS) == {"n": number}

    def test_it_works_again_and_again(self, make_peer: MakePeer, redis_server: Server, redis_prefix: str) -> None:
        peer = make_peer()
        for _ in range(3):
            peer.call("send", "work", {"n": 1})
            peer.call("flush")
            assert keys(redis_server, redis_prefix) == []


def test_everything_has_an_end(make_peer: MakePeer, redis_server: Server, redis_prefix: str) -> None:
    peer = make_peer(expiry=90, group_expiry=900)
    peer.call("group_add", "jobs", "work")
    peer.call("group_send", "jobs", {"n": 1})
    peer.call("send", "other", {"n": 1})
    assert peer.call("receive", "other") == {"n": 1}
    # -1 is a key without an end.
    ends = {key: redis_server.cli("TTL", key) for key in keys(redis_server, redis_prefix)}
    assert len(ends) >= 3
    assert [key for key, seconds in ends.items() if seconds == -1] == []


def test_a_queue_that_was_emptied_leaves_no_key(make_peer: MakePeer, redis_server: Server, redis_prefix: str) -> None:
    peer = make_peer()
    peer.call("send", "work", {"n": 1})
    peer.call("receive", "work")

    def of_the_queue() -> list[str]:
        return [key for key in keys(redis_server, redis_prefix) if "{work}" in key]

    eventually(lambda: not of_the_queue(), "nothing of it is left")


async def test_the_bytes_of_a_mailbox_are_no_reason_to_lose_a_message_of_a_queue(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity_bytes=1000)
    for number in range(5):
        await layer.send("work", {"n": number, "text": "a" * 600})
    messages = await layer.receive_many("work", 5)
    assert [message["n"] for message in messages] == [0, 1, 2, 3, 4]
    assert layer.stats().dropped_full == 0
