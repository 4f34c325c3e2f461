"""A cluster of three masters and three replicas, impatient enough for tests."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from tests.support.binaries import Binary, find
from tests.support.certificates import Authority
from tests.support.lifetime import Lifetime
from tests.support.ports import HOST, Port
from tests.support.resp import Word
from tests.support.servers import ADMIN, Options, Server
from tests.support.waiting import eventually

SLOTS = 16384
MASTERS = 3
# In milliseconds.
NODE_TIMEOUT = 1000
_MOVED_AT_ONCE = 100
# A replica gives up after five seconds.
_VOTED_WITHIN = 6.0

OPTIONS: Options = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": NODE_TIMEOUT,
    "cluster-announce-ip": HOST,
    # A replica follows its master whatever it missed, and no other.
    "cluster-replica-validity-factor": 0,
    "cluster-allow-replica-migration": "no",
    "repl-ping-replica-period": 1,
}


@dataclass(frozen=True)
class Shard:
    """Who serves a slot, as a node sees it: the master's port and those of the replicas that are there."""

    first: int
    last: int
    master: int
    replicas: tuple[int, ...]


class Node(Server):
    """A server that can be in a cluster."""

    def __init__(
        self,
        binary: Binary,
        *,
        options: Options | None = None,
        users: Mapping[str, str] | None = None,
        password: str | None = None,
        tls: Authority | None = None,
    ) -> None:
        # Beside its port it needs one for the other nodes, which would be 10,000 higher.
        self._bus = Port()
        options = {**OPTIONS, **(options or {})}
        if tls is not None:
            options = {"tls-cluster": "yes", **options}
        super().__init__(binary, options=options, users=users, password=password, tls=tls)

    def close(self) -> None:
        super().close()
        self._bus.release()

    def directives(self) -> dict[str, Word | Sequence[Word]]:
        return {**super().directives(), "cluster-port": self.bus_port}

    def _move(self) -> None:
        super()._move()
        self._bus.release()
        self._bus = Port()

    @property
    def bus_port(self) -> int:
        """Give the port on which the other nodes talk to it."""
        return self._bus.number

    @property
    def id(self) -> str:
        """Give the node's id."""
        return str(self.ask("CLUSTER", "MYID"))

    def meet(self, other: "Node") -> None:
        """Make it know another node, and those which that one knows."""
        self.ask("CLUSTER", "MEET", HOST, other.port, other.bus_port)

    def knows(self, other: "Node") -> bool:
        """Tell whether it can be told to follow the other."""
        return other.id in str(self.ask("CLUSTER", "NODES"))

    def shards(self) -> list[Shard]:
        """Give the slots and who serves them, as it sees it."""
        # Asked as a client asks: a connection that has no TLS is told the ports that have none.
        with self.connect(ADMIN) as connection:
            slots = connection.ask("CLUSTER", "SLOTS")
        self._own["auth"] += 1
        return [
            Shard(first, last, master[1], tuple(replica[1] for replica in replicas))
            for first, last, master, *replicas in slots
        ]

    def cluster_state(self) -> str:
        """Give ``ok`` if it serves its slots."""
        fields = dict(line.split(":", 1) for line in str(self.ask("CLUSTER", "INFO")).split())
        return fields["cluster_state"]

    def is_settled(self) -> bool:
        """Tell whether it thinks that the cluster is whole, and as a replica follows its master."""
        return self.cluster_state() == "ok" and self.info("replication").get("master_link_status", "up") == "up"


class Cluster(Lifetime):
    """The whole cluster, while the context lasts; the options are those of ``Server``, for each node.

    Attributes:
        nodes: The masters and then the replicas, as they were at the start.
    """

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        options: Options | None = None,
        users: Mapping[str, str] | None = None,
        password: str | None = None,
        tls: Authority | None = None,
    ) -> None:
        binary = find(tls=tls is not None) if binary is None else binary
        self.nodes = [
            Node(binary, options=options, users=users, password=password, tls=tls) for _ in range(2 * MASTERS)
        ]

    def _begin(self) -> None:
        for node in self.nodes:
            node.start()
        self._form()

    def close(self) -> None:
        """End all of the nodes."""
        for node in self.nodes:
            node.close()

    def _form(self) -> None:
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for epoch, node in enumerate(self.nodes, start=1):
            # Two nodes that take the same one settle it among them, and that takes time.
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for number, node in enumerate(self.nodes):
            # Each knows each at once; told of one only, they would hear of the others by and by.
            for other in self.nodes[number + 1 :]:
                node.meet(other)
        for number, master in enumerate(masters):
            first, end = (SLOTS * edge // MASTERS for edge in (number, number + 1))
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for master, replica in zip(masters, replicas, strict=True):
            eventually(partial(replica.knows, master), f"{replica!r} knows {master!r}")
            replica.ask("CLUSTER", "REPLICATE", master.id)
        self._wait()

    def node_of(self, slot: int) -> Node:
        """Give the master of a slot, as most nodes see it."""
        named = [shard.master for node in self._live() for shard in node.shards() if shard.first <= slot <= shard.last]
        if not named:
            raise LookupError(f"no node has slot {slot}")
        return self._node(max(named, key=named.count))

    def replica_of(self, slot: int) -> Node:
        """Give the replica of a slot's master."""
        master = self.node_of(slot)
        shards = [shard for node in self._live() for shard in node.shards() if shard.master == master.port]
        return self._node(next(port for shard in shards for port in shard.replicas))

    def slot_of(self, key: str) -> int:
        """Give the slot of a key."""
        return int(self._live()[0].ask("CLUSTER", "KEYSLOT", key))

    def migrate_slot(self, slot: int, target: Node) -> None:
        """Move a slot with its keys to another master, and wait until every node knows."""
        with self.migrating(slot, target):
            pass

    @contextmanager
    def migrating(self, slot: int, target: Node) -> Iterator[None]:
        """Move a slot; in the context it is between its master and its next one, who answer with ASK and TRYAGAIN.

        Its keys are moved when the context ends, or by ``move_keys``.
        """
        source = self.node_of(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        try:
            yield
        finally:
            self.move_keys(slot, source, target)
            masters = {shard.master for shard in source.shards()}
            others = [self._node(port) for port in masters - {source.port, target.port}]
            for node in (target, source, *others):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
            eventually(lambda: self._all_name(slot, target), f"every node names {target!r} for slot {slot}")

    def move_keys(self, slot: int, source: Node, target: Node) -> None:
        """Move the keys of a slot that is being moved."""
        while keys := source.cli("CLUSTER", "GETKEYSINSLOT", slot, _MOVED_AT_ONCE, decode=False):
            source.cli("MIGRATE", HOST, target.port, "", 0, NODE_TIMEOUT * 10, "AUTH2", *ADMIN, "KEYS", *keys)

    def failover(self, slot: int, *, kill: bool = True) -> Node:
        """Kill the master of a slot, or tell its replica to take over; wait until it has, and return it."""
        old, new = self.node_of(slot), self.replica_of(slot)
        if kill:
            old.kill()
        else:
            self._take_over(slot, new)
        eventually(lambda: self._all_name(slot, new), f"every node names {new!r} for slot {slot}")
        eventually(lambda: all(node.cluster_state() == "ok" for node in self._live()), "the cluster serves")
        return new

    def _take_over(self, slot: int, new: Node) -> None:
        new.ask("CLUSTER", "FAILOVER")
        # Masters do not vote for it as long as they have not heard all of where slots went lately; then it gives up.
        with suppress(TimeoutError):
            eventually(lambda: self._all_name(slot, new), "it takes over", _VOTED_WITHIN)
            return
        new.ask("CLUSTER", "FAILOVER")

    def heal(self) -> None:
        """Undo what was done to its nodes: start what was ended, let go what was paused, wait until all is well."""
        for node in self.nodes:
            if node.running:
                node.resume()
            else:
                node.start()
        self._wait()

    def _wait(self) -> None:
        eventually(self._is_whole, "every node finds the cluster whole")

    def _is_whole(self) -> bool:
        views = [frozenset(node.shards()) for node in self.nodes]
        return (
            all(node.is_settled() for node in self.nodes)
            and len(set(views)) == 1
            and sum(shard.last - shard.first + 1 for shard in views[0]) == SLOTS
            and all(shard.replicas for shard in views[0])
        )

    def _all_name(self, slot: int, master: Node) -> bool:
        return all(
            any(shard.first <= slot <= shard.last and shard.master == master.port for shard in node.shards())
            for node in self._live()
        )

    def _node(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)

    def _live(self) -> list[Node]:
        return [node for node in self.nodes if node.running and not node.paused]
