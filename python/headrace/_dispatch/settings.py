"""The settings that a class of consumers makes as class attributes, checked when the class is defined."""

import inspect
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from headrace._layers.base import check_capacity, check_seconds
from headrace._layers.close_message import CLOSE_TYPE
from headrace._layers.mailbox import check_limits
from headrace._websocket.rate import Rate, parse_rate
from headrace._websocket.resume import MOST_GROUPS

__all__ = [
    "GRACE_SECONDS",
    "check_backlog",
    "check_grace",
    "check_settings",
    "forwarded_fields",
    "presents_of",
    "rate_of",
    "resumes_of",
    "setting",
]

GRACE_SECONDS = 5.0
"""The default of ``grace_period``."""


def check_settings(consumer_class: Any) -> None:
    """Check what a class of consumers says of itself.

    A setting that the class has a method for is left alone: a handler of that name was there before the setting.

    Raises:
        ValueError: A value is out of range; the error names the class and the setting.
        TypeError: The class is sync and asks for what a thread cannot do.
    """
    name = consumer_class.__name__
    for seconds in ("handler_timeout", "idle_timeout"):
        _check_limit(consumer_class, seconds)
    check_grace(consumer_class)
    concurrency = setting(consumer_class, "concurrency")
    if concurrency is not None:
        check_capacity(f"{name}.concurrency", concurrency)
    check_backlog(consumer_class)
    groups = getattr(consumer_class, "groups", None)
    if isinstance(groups, str | bytes):
        raise TypeError(f"{name}.groups must be a list of names, got {groups!r}; write [{groups!r}]")
    if not consumer_class._sync:
        return
    if setting(consumer_class, "concurrency") not in (None, 1):
        raise TypeError(f"{name}.concurrency must be 1: a sync consumer handles one message at a time")
    if setting(consumer_class, "handler_timeout") is not None:
        raise TypeError(f"{name}.handler_timeout must be None: a handler in a thread cannot be stopped")


def check_grace(owner_class: Any) -> None:
    """Check how long a class lets its instances work for a client that has gone.

    Raises:
        ValueError: It is neither a positive number of seconds nor None.
    """
    _check_limit(owner_class, "grace_period")


def _check_limit(owner_class: Any, seconds: str) -> None:
    value = setting(owner_class, seconds)
    if value is not None and value != math.inf:
        check_seconds(f"{owner_class.__name__}.{seconds}", value)


def check_backlog(owner_class: Any) -> None:
    """Check what a class says of the mailboxes of its instances.

    Raises:
        ValueError: A value is out of range; the error names the class and the setting.
    """
    name = owner_class.__name__
    backlog, backlog_bytes, overflow = (
        setting(owner_class, limit) for limit in ("max_backlog", "max_backlog_bytes", "overflow")
    )
    check_limits(f"{name}.", backlog, backlog_bytes, overflow)
    if (read_ahead := setting(owner_class, "read_ahead_bytes")) is not None:
        check_capacity(f"{name}.read_ahead_bytes", read_ahead)


def forwarded_fields(consumer_class: Any) -> dict[str, str | None]:
    """Return the types of messages that a class forwards, with the field to be sent; None stands for text or bytes.

    Raises:
        TypeError: ``forward`` is neither a collection of types nor a mapping of types to fields.
        ValueError: It has the type of the messages of ``group_close``.
    """
    forward = setting(consumer_class, "forward")
    if forward is None:
        return {}
    fields: dict[Any, Any]
    if isinstance(forward, Mapping):
        fields = dict(forward)
    elif isinstance(forward, str) or not isinstance(forward, Iterable):
        fields = {None: None}
    else:
        fields = dict.fromkeys(forward)
    if CLOSE_TYPE in fields:
        raise ValueError(
            f"{consumer_class.__name__}.forward must be without {CLOSE_TYPE!r}, which closes a connection: it is what "
            "group_close() sends; define a method headrace_close(self, event) to send something first"
        )
    if all(isinstance(kind, str) and (field is None or isinstance(field, str)) for kind, field in fields.items()):
        return fields
    raise TypeError(
        f"{consumer_class.__name__}.forward must be a set of message types, or a mapping of them to the field to send, "
        f"got {forward!r}"
    )


def resumes_of(consumer_class: Any) -> bool:
    """Tell whether the clients of a class of WebSocket consumers may go on where they were.

    Raises:
        TypeError: ``resume`` is neither True nor False, or the class has what does not go with it.
        ValueError: It has more groups than a client can keep positions of.
    """
    name, resume = consumer_class.__name__, setting(consumer_class, "resume", False)
    if not isinstance(resume, bool):
        raise TypeError(f"{name}.resume must be True or False, got {resume!r}")
    if not resume:
        return False
    if forwarded_fields(consumer_class):
        raise TypeError(
            f"{name}.resume does not go with forward: a frame that is sent as it is has no position, so its client "
            "could not say where it was; write a handler that sends self.position too"
        )
    if setting(consumer_class, "concurrency", 1) != 1:
        raise TypeError(f"{name}.resume needs a concurrency of 1: a position is that of all messages before it")
    groups = consumer_class.groups
    if isinstance(groups, Collection) and len(groups) > MOST_GROUPS:
        raise ValueError(
            f"{name}.resume goes with at most {MOST_GROUPS} groups, got {len(groups)}: its clients keep a position of "
            "each"
        )
    return True


def presents_of(owner_class: Any) -> bool:
    """Tell whether the instances of a class are present in their groups.

    Raises:
        TypeError: ``presence`` is neither True nor False, or the class handles several messages at a time.
    """
    name, presence = owner_class.__name__, setting(owner_class, "presence", False)
    if not isinstance(presence, bool):
        raise TypeError(f"{name}.presence must be True or False, got {presence!r}")
    if presence and getattr(owner_class, "concurrency", 1) != 1:
        raise TypeError(f"{name}.presence needs a concurrency of 1: diffs of a list are handled in their order")
    return presence


def rate_of(owner_class: Any) -> Rate | None:
    """Return how much a class lets each of its clients send, or None if it does not say.

    Raises:
        TypeError, ValueError: A value is wrong; the error names the class and the setting.
    """
    overflow = setting(owner_class, "rate_limit_overflow", "drop")
    return parse_rate(f"{owner_class.__name__}.rate_limit", setting(owner_class, "rate_limit"), overflow)


def setting(consumer: Any, name: str, otherwise: Any = None) -> Any:
    """Return a setting of a consumer or of its class.

    Args:
        consumer: The consumer, or the class.
        name: The setting.
        otherwise: What counts if the class has a method of that name: a handler that was there before the setting.
    """
    value = getattr(consumer, name)
    return otherwise if inspect.isroutine(value) else value
