"""A master, a replica and three sentinels that watch over them, impatient enough for tests."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.binaries import Binary, find
from tests.support.lifetime import Lifetime
from tests.support.ports import HOST
from tests.support.resp import ReplyError, Word
from tests.support.servers import ADMIN, Options, Server
from tests.support.waiting import eventually

# In milliseconds: a server that a busy machine keeps waiting is not down yet.
DOWN_AFTER = 1000
FAILOVER_TIMEOUT = 2000
# How often they do things, in milliseconds. What is done each second unless told otherwise, also to connect again,
# would be too rare for a server that is down after one. Five times the first is how old the news of a replica may be
# that is made a master, and they ask it for some only each second then, whatever they are told.
PERIODS = {"ping-period": 300, "ask-period": 100, "info-period": 200, "tilt-period": 1000}
# Of the three sentinels only the first starts a failover by itself, when one other finds the master down as well: when
# several do, the votes may be split, and they wait before they vote again.
QUORUMS = (2, 4, 4)


class Sentinel(Server):
    """One sentinel, which starts a failover when as many as its quorum find the master down."""

    def __init__(self, binary: Binary, name: str, quorum: int) -> None:
        super().__init__(binary)
        self._quorum = quorum
        self.id = secrets.token_hex(20)
        self._name = name
        self._watches: list[str] = []
        self._others = 0

    def watch(self, master: Server, replica: Server, others: "list[Sentinel]") -> None:
        """Tell it before it starts what is there; of the replica and the sentinels it would hear after seconds."""
        self._others = len(others)
        self._watches = [
            f"monitor {self._name} {HOST} {master.port} {self._quorum}",
            f"known-replica {self._name} {HOST} {replica.port}",
            *(f"known-sentinel {self._name} {HOST} {other.port} {other.id}" for other in others),
        ]

    def start(self) -> None:
        super().start()
        for name, period in PERIODS.items():
            self.ask("SENTINEL", "DEBUG", name, period)

    def command(self) -> list[str | Path]:
        return [*super().command(), "--sentinel"]

    def directives(self) -> dict[str, Word | Sequence[Word]]:
        own = super().directives()
        kept = ("bind", "port", "dir", "unixsocket", "user", "daemonize", "always-show-logo")
        monitor, *known = self._watches
        return {
            **{directive: own[directive] for directive in kept},
            "sentinel": [
                f"myid {self.id}",
                monitor,
                f"auth-user {self._name} {ADMIN[0]}",
                f"auth-pass {self._name} {ADMIN[1]}",
                f"down-after-milliseconds {self._name} {DOWN_AFTER}",
                # Also how long they wait with the next vote when none of them was elected.
                f"failover-timeout {self._name} {FAILOVER_TIMEOUT}",
                *known,
            ],
        }

    def subscribers(self) -> int:
        """Give how many clients listen to what it publishes."""
        return sum(" sub=0 " not in client for client in str(self.ask("CLIENT", "LIST")).splitlines())

    def names(self) -> int:
        """Give the port of who is the master, as it tells clients."""
        return int(self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)[1])

    def state(self) -> dict[str, str]:
        """Give what it thinks of the master."""
        fields = self.ask("SENTINEL", "MASTER", self._name)
        return dict(zip(fields[::2], fields[1::2], strict=True))

    def is_content(self) -> bool:
        """Tell whether all is there and alive for it."""
        state = self.state()
        return (
            state["flags"] == "master"
            and state["num-slaves"] == "1"
            and state["num-other-sentinels"] == str(self._others)
            and all(self._alive(kind) for kind in ("REPLICAS", "SENTINELS"))
        )

    def _alive(self, kind: str) -> bool:
        entries = [
            dict(zip(fields[::2], fields[1::2], strict=True)) for fields in self.ask("SENTINEL", kind, self._name)
        ]
        return not any(bad in entry["flags"] for entry in entries for bad in ("s_down", "disconnected"))


class Sentinels(Lifetime):
    """The whole set-up, while the context lasts; the options are those of ``Server``, for the master and the replica.

    Args:
        binary: Which server; the preferred one if not said.
        options: Of the master and the replica.
        users: Of these as well.
        password: Of these as well.
        quorums: One for each sentinel.

    Attributes:
        name: What the sentinels call the master.
        servers: The master and the replica, as they were at the start.
        sentinels: The sentinels; without the first there is no failover, with it one of the others can be missing.
    """

    name = "main"

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        options: Options | None = None,
        users: Mapping[str, str] | None = None,
        password: str | None = None,
        quorums: Sequence[int] = QUORUMS,
    ) -> None:
        binary = find() if binary is None else binary
        options = {"repl-ping-replica-period": 1, **(options or {})}
        first = Server(binary, options=options, users=users, password=password)
        follows = {"replicaof": f"{HOST} {first.port}"}
        second = Server(binary, options={**options, **follows}, users=users, password=password)
        self.servers = [first, second]
        self.sentinels = [Sentinel(binary, self.name, quorum) for quorum in quorums]
        for sentinel in self.sentinels:
            sentinel.watch(first, second, [other for other in self.sentinels if other is not sentinel])

    def _begin(self) -> None:
        for server in self.servers:
            server.start()
        eventually(self._replicates, "the replica follows the master")
        for sentinel in self.sentinels:
            sentinel.start()
        self._wait()

    def close(self) -> None:
        """End all of them."""
        for server in [*self.sentinels, *self.servers]:
            server.close()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Give the addresses of the sentinels."""
        return [(HOST, sentinel.port) for sentinel in self.sentinels]

    def master(self) -> Server:
        """Give the master that most of the sentinels name."""
        named = [sentinel.names() for sentinel in self.sentinels if sentinel.running]
        most = max(named, key=named.count)
        return next(server for server in self.servers if server.port == most)

    def replica(self) -> Server:
        """Give the other one."""
        master = self.master()
        return next(server for server in self.servers if server is not master)

    def failover(self, *, kill: bool = True) -> Server:
        """Kill the master, or tell a sentinel to change it; return the replica when it is the only master."""
        old, new = self.master(), self.replica()
        if kill:
            old.kill()
            eventually(lambda: self._is_master(new), f"{new!r} is the master")
        else:
            eventually(lambda: self._is_made_master(new, old), f"{new!r} is the master")
            # The sentinels would do it too, after many seconds; what it takes until then is lost.
            old.ask("REPLICAOF", HOST, new.port)
        return new

    def _is_made_master(self, new: Server, old: Server) -> bool:
        """Have the sentinel change the master; again, if it gave up because the machine was too busy."""
        if self._is_master(new):
            return True
        first = self.sentinels[0]
        if first.names() == old.port:
            try:
                first.ask("SENTINEL", "FAILOVER", self.name)
            except ReplyError as refused:
                # A replica of which it has not heard for a moment, as on a busy machine, is not suitable.
                if not any(reason in str(refused) for reason in ("NOGOODSLAVE", "INPROG")):
                    raise
        return False

    def heal(self) -> None:
        """Undo what was done to it: start what was ended, let go what was paused, wait until all is well."""
        for server in [*self.sentinels, *self.servers]:
            if server.running:
                server.resume()
            else:
                server.start()
        master, replica = self.master(), self.replica()
        # One that was killed still believes that it is the master.
        replica.ask("REPLICAOF", HOST, master.port)
        self._wait()

    def _wait(self) -> None:
        eventually(self._replicates, "the replica follows the master")
        for sentinel in self.sentinels:
            eventually(sentinel.is_content, f"{sentinel!r} finds all well")

    def _is_master(self, server: Server) -> bool:
        # Whom sentinels make a master they tell to drop its clients, and this may be one of them.
        with suppress(ConnectionError):
            role = server.info("replication")["role"]
            return role == "master" and all(one.names() == server.port for one in self.sentinels if one.running)
        return False

    def _replicates(self) -> bool:
        return any(server.info("replication").get("master_link_status") == "up" for server in self.servers)
