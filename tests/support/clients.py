"""Clients that are not ours: redis-py, connected to the servers of the tests."""

from typing import Any

import redis
import redis.cluster
import redis.sentinel
from tests.support.cluster import Cluster
from tests.support.ports import HOST
from tests.support.resp import SECONDS

# Its types are partial, and others in each version.
REDIS: Any = redis


def client(url: str, **options: Any) -> Any:
    """Connect to one server; nothing is tried twice."""
    return REDIS.Redis.from_url(url, socket_timeout=SECONDS, retry=None, **options)


def cluster_client(cluster: Cluster) -> Any:
    """Connect to a cluster."""
    nodes = [REDIS.cluster.ClusterNode(HOST, node.port) for node in cluster.nodes if node.running]
    tls = {} if cluster.nodes[0].tls is None else {"ssl": True, "ssl_ca_certs": str(cluster.nodes[0].ca)}
    return REDIS.RedisCluster(startup_nodes=nodes, socket_timeout=SECONDS, password=cluster.nodes[0].password, **tls)


def sentinel_client(addresses: list[tuple[str, int]]) -> Any:
    """Connect to sentinels, which name a master."""
    return REDIS.sentinel.Sentinel(addresses, sentinel_kwargs={"socket_timeout": SECONDS})
