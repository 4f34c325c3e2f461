"""The frames of a socket's client: each is within the rate or dropped, decoded, and given to ``receive``."""

import asyncio
import logging
import reprlib
from typing import Any

from headrace._sockets.closing import Closing
from headrace._sockets.hook_calls import HookCalls
from headrace._sockets.hooks import Hooks
from headrace._sockets.incoming import Incoming
from headrace._websocket.codes import POLICY_VIOLATION
from headrace._websocket.phase import Phase
from headrace._websocket.rate import Rate, TokenBucket
from headrace.typing import Message

__all__ = ["take_frame"]

_logger = logging.getLogger("headrace.sockets")


async def take_frame(message: Message, calls: HookCalls, closing: Closing) -> None:
    """Handle a frame.

    Args:
        message: The frame.
        calls: Calls the hooks of the socket.
        closing: Closes it.
    """
    hooks, incoming, hub = calls.hooks, calls.incoming, calls.incoming.outgoing.hub
    incoming.received += 1
    if not incoming.has_begun and hooks.is_guarded:
        incoming.unhandled += 1
        _logger.warning("%r got a frame of somebody whom authorize() has not let in; it is not looked at", hub)
        return
    incoming.has_begun = True
    if closing.is_told:
        incoming.unhandled += 1
        return
    if (rate := hooks.rate) is not None and not _is_within(rate, hooks, incoming):
        if rate.closes and hub.phase is Phase.OPEN:
            incoming.closed_over_rate += 1
            await closing.close_here(POLICY_VIOLATION)
        return
    raw: Any = message.get("text")
    if raw is None:
        raw = message.get("bytes", b"")
    try:
        data = calls.server.ws_decoder(raw)
    except Exception as error:
        incoming.bad_messages += 1
        if incoming.bad_messages == 1:
            # Not each: a client could fill the log.
            # Nor all of it: the error of a text that is no UTF-8 holds the text.
            reason = f"{type(error).__name__}({reprlib.repr(str(error))})"
            _logger.warning("%r got a frame that its ws_decoder does not take: %s; more are counted", hub, reason)
        await calls.attempt("on_bad_message", raw, error)
    else:
        await _receive(calls, data)


def _is_within(rate: Rate, hooks: Hooks, incoming: Incoming) -> bool:
    """Tell whether the client may send this frame too; count it if not."""
    now = asyncio.get_running_loop().time()
    if incoming.bucket is None:
        incoming.bucket = TokenBucket(rate, now)
    if incoming.bucket.take(now):
        return True
    incoming.dropped_over_rate += 1
    if not hooks.has_told_rate:
        # Not each, nor each connection: a client that comes again could fill the log.
        hooks.has_told_rate = True
        _logger.warning(
            "%r: its client sends more than its rate_limit of %s, and %s; more are only counted",
            incoming.outgoing.hub,
            rate.text,
            "it is closed" if rate.closes else "the rest is dropped",
        )
    return False


async def _receive(calls: HookCalls, data: Any) -> None:
    try:
        await calls.call("receive", data)
    except Exception as error:
        if calls.note_error("receive"):
            await calls.attempt("on_error", error, data)
