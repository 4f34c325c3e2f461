"""The thread that tells what happens to the connections of a layer over Redis, while nobody asks.

It tells the log "headrace.redis", and the layer's owner of gaps, if that one wants to know. It does not keep its layer
alive, and ends with it.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headrace._core import Ledger, RedisLayer, threads_are_greenlets
from headrace._layers.native import CLOSE_TIMEOUT

__all__ = ["Gap", "join_watchers", "start_watcher"]

_logger = logging.getLogger("headrace.redis")

_LOOK = 1.0
"""Seconds between two looks, at most."""

_PAUSE = 0.25
"""Seconds between two looks where threads are greenlets, which must not stop in a native wait."""

_UNATTENDED = "sends failed that nobody waited for: %d; the latest: %s"


@dataclass(frozen=True)
class Gap:
    """Messages may have been missed here.

    Attributes:
        groups: The groups whose members here may have missed some.
        direct: Whether channels of this process may have missed messages that were sent to themselves.
        missed: How many messages are known to be missing, by the numbers of their senders; 0 if that is not known.
    """

    groups: tuple[str, ...]
    direct: bool
    missed: int


class _Layer(Protocol):
    _gap: Callable[[Gap], object] | None


_watchers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def start_watcher(layer: _Layer, redis: RedisLayer) -> None:
    """Have a thread listen to what the connections have to say."""
    watcher = threading.Thread(target=_watch, args=(weakref.ref(layer), redis), name="headrace-notices", daemon=True)
    watcher.start()
    _watchers.add(watcher)


def join_watchers() -> None:
    """Let the watchers of closed layers come to their end."""
    for watcher in list(_watchers):
        watcher.join(CLOSE_TIMEOUT)


def _watch(reference: "weakref.ref[_Layer]", redis: RedisLayer) -> None:
    unattended, told = redis.unattended(), 0
    while reference() is not None and redis.link_stats().state != "closed":
        notice = _next_notice(redis, _LOOK)
        if notice is not None:
            _tell(reference(), notice)
        told = _tell_failures(unattended, told)
    # At its end the layer gives up what it could not send.
    while (notice := _next_notice(redis, CLOSE_TIMEOUT)) is not None:
        _tell(reference(), notice)
    unattended.settle(CLOSE_TIMEOUT)
    _tell_failures(unattended, told)


def _next_notice(redis: RedisLayer, seconds: float) -> dict[str, Any] | None:
    """Wait for the next notice, at most so many seconds; where threads are greenlets, for a pause."""
    if not threads_are_greenlets():
        return redis.next_notice(seconds)
    notice = redis.next_notice(0)
    if notice is None:
        time.sleep(_PAUSE)
        notice = redis.next_notice(0)
    return notice


def _tell(layer: _Layer | None, notice: dict[str, Any]) -> None:
    """Tell what happened; in a frame of its own, so that the thread does not keep the layer alive."""
    match notice["kind"]:
        case "disconnected":
            _logger.warning("disconnected: %s", notice["reason"])
        case "reconnected":
            _logger.warning("connected again")
        case "clock set":
            _logger.warning(
                "the clock of %s was set by %+.1f s: what was sent or queued just then may expire early or late",
                notice["server"],
                notice["milliseconds"] / 1000,
            )
        case "unsent":
            _logger.warning(_UNATTENDED, notice["messages"], notice["reason"])
        case "late":
            _logger.warning(
                "a message came after its deadline and was dropped; those that follow are only counted, in "
                "stats().connection.late"
            )
        case "oversized":
            _logger.warning(
                "a message of %d bytes came by %s and was dropped, as max_message_bytes is %d here: set it alike in "
                "all processes; those that follow are only counted, in stats().connection.oversized",
                notice["bytes"],
                notice["place"],
                notice["limit"],
            )
        case "queue expired":
            _logger.warning(
                "a message of the queue %r expired before it was received; those that follow are only counted, in "
                "stats().connection.queue_expired",
                notice["channel"],
            )
        case "refused":
            _logger.warning(
                "refused what came by %s%s: %s; those that follow are only counted, in stats().connection.%s",
                notice["place"],
                f" from process {notice['sender']}" if notice["sender"] else "",
                notice["reason"],
                notice["counter"],
            )
        case "gap":
            _tell_gap(Gap(tuple(notice["groups"]), notice["direct"], notice["missed"]), layer._gap if layer else None)


def _tell_gap(gap: Gap, hook: Callable[[Gap], object] | None) -> None:
    if gap.groups:
        _logger.warning("groups may have missed messages: %s", _some(gap.groups))
    if hook is not None:
        try:
            hook(gap)
        except Exception:
            _logger.exception("the gap hook failed")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _tell_failures(unattended: Ledger, told: int) -> int:
    """Log, in one line, what failed since so many failures were logged; return how many there are."""
    failed = unattended.failed
    if failed > told:
        _logger.warning(_UNATTENDED, failed - told, unattended.fault())
    return failed
