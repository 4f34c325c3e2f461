"""A server as the serverless offers of clouds are: one endpoint, the cluster's protocol, and little else allowed."""

import secrets
from pathlib import Path

from tests.support.binaries import Binary, find
from tests.support.certificates import Authority
from tests.support.cluster import SLOTS, Node
from tests.support.waiting import eventually

# All that the layer may use, and so all that its user may do here. No SELECT, KEYS, CONFIG, CLIENT, scripts or MULTI.
COMMANDS = (
    *("hello", "auth", "ping", "time", "asking", "cluster|slots"),
    *("publish", "spublish", "subscribe", "unsubscribe", "ssubscribe", "sunsubscribe"),
    *("rpush", "lpush", "lrem", "llen", "lmove", "lrange", "expire", "del"),
    *("hset", "hdel", "hgetall", "sadd", "smembers"),
)
ENDPOINT = "localhost"


class Serverless(Node):
    """One node that has all slots, speaks TLS unless told otherwise, and lets one user run only ``COMMANDS``.

    What was tried and forbidden is in ``denied()``; what the slots forbade is ``CROSSSLOT`` in ``errors_seen()``.

    Args:
        binary: Which server; the preferred one with TLS if not said.
        tls: Who issues its certificate; ``None`` is for a server that was built without TLS.
        idle: After how many seconds without a request a connection is closed; not one that subscribes. 0 is never.

    Attributes:
        user: The one user, and its password.
    """

    def __init__(self, binary: Binary | None = None, *, tls: Authority | None, idle: int = 0) -> None:
        self.user = ("app", secrets.token_hex(16))
        allowed = " ".join(f"+{command}" for command in COMMANDS)
        super().__init__(
            find(tls=tls is not None) if binary is None else binary,
            options={
                # Whoever resolves the endpoint may get either address.
                "bind": "127.0.0.1 -::1",
                # One name for every slot, as a proxy before many servers has.
                "cluster-announce-hostname": ENDPOINT,
                "cluster-preferred-endpoint-type": "hostname",
                "timeout": idle,
            },
            users={"default": "off", self.user[0]: f"on >{self.user[1]} ~* &* -@all {allowed}"},
            tls=tls,
        )

    def start(self) -> None:
        new = not Path(self.folder, "nodes.conf").exists()
        super().start()
        if new:
            self.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        # A master that comes back is silent for two seconds: others might have come to serve its slots.
        eventually(lambda: self.cluster_state() == "ok", f"{self!r} serves its slots")

    @property
    def url(self) -> str:
        return self.url_for(self.user, ENDPOINT)
