"""A channel for the length of a context: for applications that use no consumers."""

from types import TracebackType

from headrace._core import Inbox
from headrace._layers.mailbox import OVERFLOWS, Mailbox, MailboxLayer, Overflow, check_limits
from headrace.exceptions import ConnectionClosed

__all__ = ["Subscription"]

_OVERFLOWS = tuple(overflow for overflow in OVERFLOWS if overflow != "close")


class Subscription:
    """A channel that is in some groups while the context lasts; entering it gives the channel's inbox.

    Use ``layer.subscription(*groups)`` to make one. It can be entered again when it was left.
    """

    def __init__(
        self,
        layer: MailboxLayer,
        groups: tuple[str, ...],
        max_backlog: int | None,
        max_backlog_bytes: int | None,
        overflow: Overflow,
        since: str | int | None = None,
    ) -> None:
        check_limits("", max_backlog, max_backlog_bytes, overflow, _OVERFLOWS)
        self._layer = layer
        self._groups = groups
        self._since = since
        self._limits = max_backlog, overflow, max_backlog_bytes
        # That of the context; another each time.
        self._mailbox: Mailbox | None = None

    async def __aenter__(self) -> Inbox:
        if self._mailbox is not None:
            raise RuntimeError("the subscription is entered already; make another")
        self._mailbox = mailbox = Mailbox(self._layer, *self._limits)
        try:
            inbox = await mailbox.open()
            joined = [await mailbox.join(group, self._since) for group in self._groups]
            if self._since is not None:
                inbox.note_complete(all(joined))
        except BaseException:
            self._mailbox = None
            mailbox.close()
            raise
        return inbox

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None and mailbox.close() and mailbox.inbox is not None:
            mailbox.inbox.end()

    async def join(self, group: str, since: str | int | None = None) -> bool | None:
        """Get what is sent to one more group from now on, until the context ends; returns when that is so.

        Args:
            group: The group.
            since: A position in its stream, or a number of messages: what was missed is received first.

        Returns:
            As the layer's ``group_add``: whether that is all; None without ``since``.

        Raises:
            RuntimeError: The context has not been entered, or has ended.
            TypeError, ValueError: As ``group_add``.
            LayerUnavailable, LayerClosed: As the layer's ``group_add``; nothing was joined.
        """
        try:
            return await self._of_context().join(group, since)
        except ConnectionClosed:
            raise RuntimeError(f"the subscription was left while it joined {group!r}") from None

    async def leave(self, group: str) -> None:
        """Get nothing more of a group; no error if it was not joined. What of it waits in the inbox stays there.

        Raises:
            RuntimeError: The context has not been entered, or has ended.
            TypeError: The name is not valid.
            LayerClosed: The layer was closed.
        """
        await self._of_context().leave(group)

    def _of_context(self) -> Mailbox:
        if self._mailbox is None:
            raise RuntimeError("the subscription is not entered: join and leave groups within its 'async with'")
        return self._mailbox
