"""``wire="channels_redis"``: channels_redis's pub/sub layer is at the other end, in another process."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from tests.support.peers import CHANNELS_REDIS, Peer
from tests.support.servers import Server
from tests.support.waiting import eventually

MakePeer = Callable[..., Peer]

MESSAGE = {
    "type": "chat.message",
    "text": "grüße",
    "bytes": b"\x00\xff",
    "numbers": [0, -1, 2**63 - 1, 2**64 - 1, -(2**63), 0.5],
    "nothing": None,
    "deep": {"yes": True, "no": [[], {}], "raw": {b"\xff": 1}},
}
KEYS = ["new key", "old key"]


@pytest.fixture(params=[None, KEYS], ids=["plain", "encrypted"])
def keys(request: pytest.FixtureRequest) -> list[str] | None:
    """Give the keys of a fleet, if it has any."""
    keys: list[str] | None = request.param
    return keys


@pytest.fixture(params=[1, 3], ids=["one-host", "three-hosts"])
def servers(request: pytest.FixtureRequest, redis_server: Server) -> list[Server]:
    """Give one server, or three."""
    if request.param == 1:
        return [redis_server]
    start: Callable[..., Server] = request.getfixturevalue("start_redis")
    return [start() for _ in range(request.param)]


class Fleet:
    """Processes of both kinds, with the same settings."""

    def __init__(self, make_peer: MakePeer, servers: list[Server], prefix: str, keys: list[str] | None) -> None:
        self._make = make_peer
        self._servers = servers
        self._prefix = prefix
        self._settings = {"hosts": [server.url for server in servers], "symmetric_encryption_keys": keys}

    def old(self) -> Peer:
        """Start a process that is not moved yet."""
        return self._make(backend=CHANNELS_REDIS, **self._settings)

    def new(self) -> Peer:
        """Start one that is."""
        return self._make(wire="channels_redis", **self._settings)

    def joined(self, group: str, processes: int) -> None:
        """Wait until so many processes are subscribed: group_add of channels_redis does not."""
        self._subscribed(f"{self._prefix}__group__{group}", processes)

    def new_channel(self, peer: Peer) -> str:
        """Make a channel, and wait until its process is subscribed: new_channel of channels_redis does not."""
        channel: str = peer.call("new_channel")
        self._subscribed(channel, 1)
        return channel

    def _subscribed(self, topic: str, processes: int) -> None:
        def subscribed() -> bool:
            counts = (int(server.cli("PUBSUB", "NUMSUB", topic)[1]) for server in self._servers)
            return sum(counts) == processes

        eventually(subscribed, f"{processes} are subscribed to {topic}")


# The servers outlive the layers that are connected to them.
@pytest.fixture
def fleet(servers: list[Server], redis_prefix: str, make_peer: MakePeer, keys: list[str] | None) -> Fleet:
    """Give a fleet without processes."""
    return Fleet(make_peer, servers, redis_prefix, keys)


class Way(NamedTuple):
    """Which process sends, and which receives."""

    sender: Peer
    receiver: Peer


@pytest.fixture(params=["old-to-new", "new-to-old"])
def way(request: pytest.FixtureRequest, fleet: Fleet) -> Way:
    """Give a process of each kind."""
    old, new = fleet.old(), fleet.new()
    return Way(old, new) if request.param == "old-to-new" else Way(new, old)


def test_a_specific_channel_is_reached_from_the_other_kind(fleet: Fleet, way: Way) -> None:
    # Several, because their names are spread over the hosts.
    for number in range(8):
        channel = fleet.new_channel(way.receiver)
        way.sender.call("send", channel, {**MESSAGE, "n": number})
        assert way.receiver.call("receive", channel) == {**MESSAGE, "n": number}


def test_a_channel_made_without_a_loop_is_reached_at_once(fleet: Fleet) -> None:
    sender, receiver = fleet.old(), fleet.new()
    for number in range(8):
        channel = receiver.call("new_channel_sync")
        sender.call("send", channel, {**MESSAGE, "n": number})
        assert receiver.call("receive", channel) == {**MESSAGE, "n": number}


def test_a_group_spans_both_kinds(fleet: Fleet) -> None:
    old, new = fleet.old(), fleet.new()
    channels = {peer: peer.call("new_channel") for peer in (old, new)}
    for number in range(8):
        group = f"room.{number}"
        for peer, channel in channels.items():
            peer.call("group_add", group, channel)
        fleet.joined(group, 2)
        for sender in (old, new):
            sender.call("group_send", group, {**MESSAGE, "n": number})
            for peer, channel in channels.items():
                assert peer.call("receive", channel) == {**MESSAGE, "n": number}


def test_who_left_a_group_hears_nothing_of_it(fleet: Fleet, way: Way) -> None:
    sender, receiver = way
    channel = fleet.new_channel(receiver)
    receiver.call("group_add", "room", channel)
    receiver.call("group_discard", "room", channel)
    sender.call("group_send", "room", {"type": "not.for.you"})
    sender.call("send", channel, {"type": "for.you"})
    assert receiver.call("receive", channel) == {"type": "for.you"}


def test_the_other_key_of_a_rotation_is_understood(
    make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    fleet = Fleet(make_peer, [redis_server], redis_prefix, KEYS)
    old = make_peer(backend=CHANNELS_REDIS, symmetric_encryption_keys=KEYS)
    new = make_peer(wire="channels_redis", symmetric_encryption_keys=KEYS[::-1])
    for sender, receiver in ((old, new), (new, old)):
        channel = fleet.new_channel(receiver)
        sender.call("send", channel, MESSAGE)
        assert receiver.call("receive", channel) == MESSAGE


def heard_by(peer: Peer, channel: str, count: int) -> list[Any]:
    """Wait until so many messages came there."""
    eventually(lambda: len(peer.collected(channel)) >= count, f"{count} messages came")
    return peer.collected(channel)


def test_a_fleet_is_moved_process_by_process(fleet: Fleet) -> None:
    """At each step every process hears every other, and itself, once and in order."""
    processes = [fleet.old() for _ in range(3)]
    for moved in range(4):
        if moved:
            processes[moved - 1] = fleet.new()
        channels = [peer.call("new_channel") for peer in processes]
        group = f"step.{moved}"
        for peer, channel in zip(processes, channels, strict=True):
            peer.call("group_add", group, channel)
            peer.collect(channel)
        fleet.joined(group, 3)
        heard = []
        for number, sender in enumerate(processes):
            sender.call("group_send", group, {"type": "hello", "from": number})
            heard.append({"type": "hello", "from": number})
        for peer, channel in zip(processes, channels, strict=True):
            assert heard_by(peer, channel, len(heard)) == heard


def test_what_is_not_of_channels_redis_is_counted(make_peer: MakePeer, redis_server: Server, keys: Any) -> None:
    new = make_peer(wire="channels_redis", symmetric_encryption_keys=keys)
    channel = new.call("new_channel")
    for junk in (b"", b"\xc1", b"\x81\xa4type", os.urandom(64), b"\x90" * 40, b"gAAAA"):
        redis_server.cli("PUBLISH", channel, junk)
    counter = "unauthenticated" if keys else "malformed"
    eventually(lambda: new.link()[counter] == 6, "all six are counted")
    new.call("send", channel, {"type": "still.there"})
    assert new.call("receive", channel) == {"type": "still.there"}
