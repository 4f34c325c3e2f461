"""What projects read of Channels' layers and of channels_redis's, and what headrace's have in its place."""

from collections.abc import Mapping
from typing import Any

__all__ = ["ABSENT", "ABSENT_OVER_REDIS", "say_absent"]

_EXPIRY = "what has expired is dropped when it is met: nothing has to be cleaned"
_CONNECTIONS = (
    "connections are native: for a health check await connect(), or read stats().connection; for commands of your own "
    "make a client of your own, with what is in hosts"
)
_MAILBOXES = "messages wait in native mailboxes: read stats(), or channel_stats(channel)"
_TOPICS = "groups and channels are topics that the layer subscribes to itself: read group_channels(group), or stats()"
_QUEUES = "receive() waits natively: cancel it, or give receive_sync() a timeout"

ABSENT: Mapping[str, str] = {
    **dict.fromkeys(("_clean_expired", "_remove_from_groups"), f"{_EXPIRY}; close_channel(channel) leaves all groups"),
}
"""Names of the layer in memory, each with what to use."""

ABSENT_OVER_REDIS: Mapping[str, str] = {
    **dict.fromkeys(("connection", "create_pool", "pools", "_layers", "_shards", "_get_shard"), _CONNECTIONS),
    **dict.fromkeys(("_group_key", "_get_group_channel_name", "_subscribe_to_channel", "groups", "channels"), _TOPICS),
    **dict.fromkeys(
        ("receive_buffer", "receive_count", "receive_cleaners", "_map_channel_keys_to_connection"), _MAILBOXES
    ),
    **dict.fromkeys(("receive_lock", "receive_clean_locks", "receive_event_loop", "wait_received"), _QUEUES),
    **dict.fromkeys(("receive_single", "brpop_timeout", "_brpop_with_clean"), _QUEUES),
    **dict.fromkeys(("_backup_channel_name", "_clean_receive_backup"), _EXPIRY),
    "consistent_hash": "the setting ring says how names are spread over several hosts",
}
"""Names of the layers of channels_redis, each with what to use."""


class _Absent:
    """An attribute that is not there, and says what is.

    A descriptor for each, and no ``__getattr__``: with that Python finds all other attributes of a layer more slowly.
    """

    def __init__(self, name: str, instead: str) -> None:
        self._name = name
        self._instead = instead

    def __get__(self, layer: object, kind: type[Any]) -> Any:
        what = f"{kind.__name__!r} object has no attribute {self._name!r}"
        raise AttributeError(f"{what}; {self._instead}", name=self._name, obj=layer)


def say_absent(layer_class: type[Any], absent: Mapping[str, str]) -> None:
    """Have the layers of a class say what to use in the place of what they lack."""
    for name, instead in absent.items():
        setattr(layer_class, name, _Absent(name, instead))
