"""How much is measured: all of it, or just enough to see that every bench still runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The sizes of a run.

    Attributes:
        rounds: Rounds of slices of about a millisecond.
        slow_rounds: Rounds of slices that take longer.
        groups: Sizes of the groups in the fan-out against futures.
        channels_groups: Sizes of the groups in the fan-out against Channels.
        once: A group so large that Channels is measured once; None to leave it out.
        flood: Messages in a flood from a thread.
        flood_rounds: Floods.
        latencies: Single messages from a thread to an idle loop.
        receivers: Idle receivers, for the memory that each takes.
        memberships: Memberships, for the same.
        many_memberships: Memberships shown once in one process.
        consumers: Idle consumers, for the memory that each takes.
        clients: Numbers of WebSockets that a server sends to, the fewest first.
        socket_rounds: Rounds over sockets.
        redis_members: Members of a group over Redis, in each process.
        redis_sends: Sends over Redis at once.
        redis_processes: Processes with members.
        redis_idle: Seconds in which nothing is sent.
        socket_servers: Numbers of socket servers in a process.
        broadcasts: Broadcasts from plain code in a row.
    """

    rounds: int
    slow_rounds: int
    groups: tuple[int, ...]
    channels_groups: tuple[int, ...]
    once: int | None
    flood: int
    flood_rounds: int
    latencies: int
    receivers: int
    memberships: int
    many_memberships: int
    consumers: int
    clients: tuple[int, ...]
    socket_rounds: int
    redis_members: int
    redis_sends: int
    redis_processes: int
    redis_idle: float
    socket_servers: tuple[int, ...]
    broadcasts: int


FULL = Scale(
    rounds=150,
    slow_rounds=20,
    groups=(10, 100, 1000, 10_000),
    channels_groups=(10, 100, 1000),
    once=5000,
    flood=100_000,
    flood_rounds=9,
    latencies=1000,
    receivers=50_000,
    memberships=100_000,
    many_memberships=1_000_000,
    consumers=5000,
    clients=(300, 1000, 5000),
    socket_rounds=60,
    redis_members=1000,
    redis_sends=1000,
    redis_processes=4,
    redis_idle=6.0,
    socket_servers=(50, 500),
    broadcasts=1000,
)

QUICK = Scale(
    rounds=3,
    slow_rounds=2,
    groups=(10, 100),
    channels_groups=(10,),
    once=None,
    flood=2000,
    flood_rounds=2,
    latencies=20,
    receivers=5000,
    memberships=20_000,
    many_memberships=20_000,
    consumers=500,
    clients=(20, 50),
    socket_rounds=2,
    redis_members=200,
    redis_sends=200,
    redis_processes=2,
    redis_idle=0.2,
    socket_servers=(5, 20),
    broadcasts=50,
)
