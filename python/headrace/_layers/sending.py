"""How the layers with native mailboxes send.

The native side returns what a call gives at once, or a ``Reply``: the coroutine function awaits it, and its twin waits
for it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

from headrace._core import Ledger, MemoryLayer, RedisLayer, Reply, SendReport
from headrace._layers.close_message import close_message
from headrace._websocket.codes import FORBIDDEN

__all__ = ["SendingLayer"]

_Exclude: TypeAlias = str | Collection[str]


class SendingLayer:
    """The methods that send."""

    _engine: MemoryLayer | RedisLayer
    # A message that passes the type checker may be no dict; it is refused natively.
    _send: Callable[[str, Any], Reply | None]
    _send_soon: Callable[[str, Any], Reply | None]
    _group_send: Callable[[str, Any, _Exclude], SendReport | Reply]
    _group_send_soon: Callable[[str, Any, _Exclude], SendReport | Reply]
    _overridden: ClassVar[frozenset[str]]

    def _bind_sending(self) -> None:
        # Bound once: a lookup less on every message.
        engine = self._engine
        self._send, self._send_soon = engine.send, engine.send_soon
        self._group_send, self._group_send_soon = engine.group_send, engine.group_send_soon

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """Send a message to one channel.

        Over Redis it returns when the server has the message. If it is cancelled, it may have sent it.

        Raises:
            ChannelFull: The mailbox is at its capacity, in messages or in bytes, or the queue is; the message was not
                sent. A mailbox of another process that is full counts the message in its ``dropped_full`` instead.
            TypeError: The name is not valid, or the message holds what cannot be carried; the error has its path.
            InvalidMessage: The message is not a dict, or uses a reserved key.
            ValueError: A value does not fit, or the message holds itself or is nested too deep.
            MessageTooLarge: It is longer than ``max_message_bytes``.
            LayerUnavailable: The server could not be reached, did not answer in time, or refused.
            LayerClosed: The layer was closed.
        """
        asked = self._send(channel, message)
        if asked is not None:
            await asked

    # Keyword-only, ``confirm`` would cost each call of 4,000 instructions 200 more.
    def send_sync(self, channel: str, message: Mapping[str, Any], confirm: bool = False) -> None:
        """Do what ``send`` does, from any thread, with or without a loop.

        To a channel of a process it does not wait for a server unless asked to; what the server does not take in
        time is counted in ``stats().connection.unsent``, and told to the log. A queue is always waited for, because it
        may be full. While 64 MiB wait for the server it blocks for up to ``send_timeout`` seconds, until there is room.

        Args:
            channel: The channel.
            message: The message.
            confirm: Wait for the server. Whether the channel's process is still there ``send_many_sync`` reports.

        Raises:
            LayerUnavailable: As ``send``; or, without waiting, no server can be reached.
            ChannelFull, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        send = self._send if confirm else self._send_soon
        asked = send(channel, message)
        if asked is not None:
            asked.wait()

    async def group_send(self, group: str, message: Mapping[str, Any], *, exclude: _Exclude = ()) -> SendReport:
        """Send a message to every channel of a group; over Redis it returns when the server has it.

        It never raises for a full channel, and never waits for one.

        Args:
            group: The group; one without members is no error.
            message: The message. Each receiver gets a copy of its own.
            exclude: A channel, or several, to pass by.

        Returns:
            How many channels got the message, and how many were full and did not. Over Redis ``delivered_here`` counts
            the members that were in this process when it was sent, and the queues that took it; those of other
            processes are not known here, so that ``delivered`` is None. ``dropped_full`` counts the queues that were
            full, and ``processes`` those that the server passed the message on to.

        Raises:
            LayerUnavailable, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        report = self._group_send(group, message, exclude)
        return report if type(report) is SendReport else await report

    def group_send_sync(
        self, group: str, message: Mapping[str, Any], *, exclude: _Exclude = (), confirm: bool = False
    ) -> SendReport:
        """Do what ``group_send`` does, from any thread, with or without a loop, in a few microseconds.

        It does not wait for a server unless asked to; what the server does not take in time is counted in
        ``stats().connection.unsent``, and told to the log. If there are queues in the group it waits, because they may
        be full. While 64 MiB wait for the server it blocks for up to ``send_timeout`` seconds, until there is room.

        Returns:
            As ``group_send``. ``processes`` is None if the server was not waited for, and ``delivered_here`` is no
            evidence then: it counts the members here before the server has the message.

        Raises:
            LayerUnavailable: As ``send``; or, without waiting, no server can be reached.
            TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        send = self._group_send if confirm else self._group_send_soon
        report = send(group, message, exclude)
        return report if type(report) is SendReport else report.wait()

    async def group_close(
        self, group: str, code: int = FORBIDDEN, reason: str = "", *, exclude: _Exclude = ()
    ) -> SendReport:
        """Close the WebSockets of a group, in all processes, with one ``group_send``.

        Each consumer and socket server closes its connection when it has handled what was sent to it before; then its
        ``disconnect`` is called with the code. A full mailbox takes this message too, whatever its ``overflow``, and
        keeps it longer than others, for ``group_expiry``. Who joins the group later is not touched.

        Whatever else receives from a channel of the group gets ``{"type": "headrace.close", "code": ..., "reason":
        ...}``, and does with it what it likes: a subscription, a queue, ``receive``. A consumer of Channels' own
        handles it in a method ``headrace_close``.

        Args:
            group: The group; one without members is no error.
            code: What to close with.
            reason: A text of at most 123 bytes.
            exclude: A channel, or several, to pass by.

        Returns:
            As ``group_send``.

        Raises:
            TypeError, ValueError: The code cannot be sent, or the reason is no text or too long.
            LayerUnavailable, LayerClosed: As ``group_send``.
        """
        message = close_message(code, reason)
        if "group_send" in self._overridden:
            # One that is written as Channels' has no ``exclude``.
            overridden = (
                self.group_send(group, message, exclude=exclude) if exclude else self.group_send(group, message)
            )
            return await overridden
        report = self._engine.group_close(group, message, exclude)
        return report if type(report) is SendReport else await report

    def group_close_sync(
        self, group: str, code: int = FORBIDDEN, reason: str = "", *, exclude: _Exclude = (), confirm: bool = False
    ) -> SendReport:
        """Do what ``group_close`` does, from any thread, with or without a loop: in a signal handler, say.

        It waits for a server as ``group_send_sync`` does.

        Raises:
            TypeError, ValueError, LayerUnavailable, LayerClosed: As ``group_close``.
        """
        message = close_message(code, reason)
        if "group_send" in self._overridden:
            return (
                self.group_send_sync(group, message, exclude=exclude)
                if exclude
                else self.group_send_sync(group, message)
            )
        close = self._engine.group_close if confirm else self._engine.group_close_soon
        report = close(group, message, exclude)
        return report if type(report) is SendReport else report.wait()

    async def send_many(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Send messages to channels, given as pairs, with one wake for all, and one wait for the server.

        Nothing is sent if any pair is not valid. A full channel is not an error here: it is counted.

        Returns:
            As ``group_send``. Over Redis ``delivered_here`` counts the messages to channels of this process and those
            that queues took, and ``processes`` those that the server passed on to the process of their channel.

        Raises:
            LayerUnavailable, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        report = self._engine.send_many(pairs)
        return report if type(report) is SendReport else await report

    def send_many_sync(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Do what ``send_many`` does, from any thread; it blocks until the server has the messages."""
        report = self._engine.send_many(pairs)
        return report if type(report) is SendReport else report.wait()

    async def group_send_many(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: _Exclude = ()
    ) -> SendReport:
        """Send messages to groups, given as pairs, with one wake for all, and one wait for the server.

        Nothing is sent if any pair is not valid. The excluded channel, or several, gets none of them. The report is as
        that of ``group_send``.

        Raises:
            LayerUnavailable, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        report = self._engine.group_send_many(pairs, exclude)
        return report if type(report) is SendReport else await report

    def group_send_many_sync(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: _Exclude = ()
    ) -> SendReport:
        """Do what ``group_send_many`` does, from any thread; it blocks until the server has the messages."""
        report = self._engine.group_send_many(pairs, exclude)
        return report if type(report) is SendReport else report.wait()

    def _group_send_unattended(self, group: str, message: Mapping[str, Any], ledger: Ledger) -> bool:
        """Send to a group from any thread, and wait for nothing but room, not even for queues that are in it.

        What can be told at once is raised. What fails later is counted in the ledger, and logged as a warning.

        Returns:
            Whether it was sent: nothing is if a subclass has a ``group_send`` of its own, which has to be awaited.
        """
        self._engine.group_send_unattended(group, message, ledger)
        return True
