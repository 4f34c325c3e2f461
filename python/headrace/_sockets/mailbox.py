"""The channel of one socket or broadcaster: where the messages of its topics wait for it."""

import os
import weakref
from collections.abc import Callable

from headrace._core import Inbox
from headrace._layers.mailbox import Mailbox, Overflow, close_channel
from headrace._layers.native import NativeChannelLayer
from headrace._sockets.topics import group_of

__all__ = ["TopicMailbox"]


class TopicMailbox(Mailbox):
    """A mailbox whose groups are called by their topics; its channel is closed when nobody has it any more.

    Args:
        layer: As for ``Mailbox``.
        backlog: As for ``Mailbox``.
        overflow: As for ``Mailbox``.
        backlog_bytes: As for ``Mailbox``.

    Attributes:
        on_open: Called when there is an inbox, by whichever thread made it.
    """

    __slots__ = ("__weakref__", "on_open")

    _layer: NativeChannelLayer

    def __init__(
        self,
        layer: NativeChannelLayer,
        backlog: int | None = None,
        overflow: Overflow = "drop_new",
        backlog_bytes: int | None = None,
    ) -> None:
        super().__init__(layer, backlog, overflow, backlog_bytes)
        self.on_open: Callable[[], object] | None = None

    def _name(self, group: str) -> str:
        return group_of(group)

    def _opened(self, inbox: Inbox) -> None:
        weakref.finalize(self, _close_forgotten, self._layer, inbox.channel, os.getpid()).atexit = False
        if self.on_open is not None:
            self.on_open()

    def close(self) -> bool:
        """Leave all topics and drop what waits. Never blocks; may be called again, and by any thread."""
        # The other half of a cycle.
        self.on_open = None
        return super().close()


def _close_forgotten(layer: NativeChannelLayer, channel: str, process: int) -> None:
    """Close the channel of a mailbox that nobody has any more; not in the child of a fork, where it is the parent's."""
    if process == os.getpid():
        close_channel(layer, channel)
