"""The in-process layer: Channels' API over the native mailboxes and groups."""

from collections.abc import Iterable
from functools import partial
from typing import Literal

from headrace._core import LayerStats, ManualClock, MemoryLayer
from headrace._layers.absent import ABSENT, say_absent
from headrace._layers.arguments import suggests_arguments
from headrace._layers.base import Capacities, HistorySetting, LayerOptions, PresenceSetting
from headrace._layers.native import NativeChannelLayer
from headrace._layers.siblings import warn_of_siblings
from headrace._layers.views import ChannelsView, GroupsView

__all__ = ["InMemoryChannelLayer"]


_OWNER = ".inmemory"
"""What stands before the ``!`` in the names of its channels, at the end."""


class InMemoryChannelLayer(NativeChannelLayer):
    """A channel layer in this process, for any number of threads and event loops.

    It does what ``channels.layers.InMemoryChannelLayer`` does, with these differences: a name may have 100
    characters; expired messages do not count against the capacity and do not end memberships; a capacity is
    at least 1; cancelling a receive, flushing, or a second receiver leaves nobody deaf; ``group_send`` returns a
    report; after ``close`` the layer refuses work.

    After a fork the child has an empty layer under the same name; the parent's is not affected.

    Args:
        expiry: Seconds that a message may wait in its mailbox.
        group_expiry: Seconds that a membership lasts after its latest ``group_add``. One of a channel that a living
            consumer, socket or subscription has does not expire.
        capacity: How many messages a mailbox holds.
        channel_capacity: Other capacities by glob or compiled pattern of the channel's name; the first
            match counts.
        capacity_bytes: How many bytes of messages a mailbox holds behind the first, which it takes whatever its size. A
            message counts the bytes of its texts and byte strings, and 32 for each key, value and container.
        history: Of which groups the newest messages are kept, by glob of the group's name; the first match counts. With
            each, ``size``, how many messages (1 to 10,000), and ``ttl``, for how many seconds after the last.
        history_bytes: How many bytes these messages may take together: their own, 64 for each, and 256 for each group.
            Beyond that the group that was unused for longest loses its history.
        presence: Which groups tell their members who is present, by glob of the group's name; the first match counts.
            With each, any of ``type``, that of the messages that tell (``"presence.diff"``); ``interval``, for how many
            seconds changes are gathered (0.5; 0.01 to 60); ``linger``, for how many seconds whoever has left may return
            without an event (10; 0 to 3,600); and ``max``, of how many channels the members are told by name (1,000;
            1 to 100,000): of more they get the counts alone.
        counted: Globs of the groups that ``group_count_everywhere`` counts.
        strict: Accept only messages that every engine can carry: dict with keys of str or bytes, list, str, bytes,
            int from -2**63 to 2**64 - 1, float, bool and None. Tuples become lists; bytearray and memoryview become
            bytes. Without it, whatever ``copy.deepcopy`` can copy, and a memoryview as bytes. Text with lone surrogates
            is refused in any case: a receiver could not send it on.
        wake: ``"direct"`` resumes all tasks that got a message from one callback of their loop;
            ``"future"`` gives each an ``asyncio.Future``, for loops or tasks that insist on one.
        clock: A clock to use in place of the machine's, for tests.

    Raises:
        ValueError: A setting is out of range; the error names it.
    """

    @suggests_arguments
    def __init__(
        self,
        expiry: float = LayerOptions.expiry,
        group_expiry: float = LayerOptions.group_expiry,
        capacity: int = LayerOptions.capacity,
        channel_capacity: Capacities | None = LayerOptions.channel_capacity,
        *,
        capacity_bytes: int = LayerOptions.capacity_bytes,
        history: HistorySetting | None = LayerOptions.history,
        history_bytes: int = LayerOptions.history_bytes,
        presence: PresenceSetting | None = LayerOptions.presence,
        counted: Iterable[str] | None = LayerOptions.counted,
        strict: bool = False,
        wake: Literal["direct", "future"] = LayerOptions.wake,
        clock: ManualClock | None = None,
    ) -> None:
        self._clock = clock
        super().__init__(
            expiry,
            group_expiry,
            capacity,
            channel_capacity,
            capacity_bytes=capacity_bytes,
            history=history,
            history_bytes=history_bytes,
            presence=presence,
            counted=counted,
            strict=strict,
            wake=wake,
        )

    def _start_empty(self) -> None:
        # By the first group_send a server has started all its workers.
        core = MemoryLayer(self._config, self._clock, _OWNER, partial(warn_of_siblings, type(self).__name__))
        self._begin(core, core, _OWNER)

    def stats(self) -> LayerStats:
        """Read the layer's counters. ``sent == delivered + depth + dropped_expired + dropped_other``."""
        return self._core.stats()

    @property
    def channels(self) -> ChannelsView:
        """The channels that hold messages or waiting receivers, as a live mapping from names to mailboxes."""
        return ChannelsView(self)

    @property
    def groups(self) -> GroupsView:
        """The groups that have members, as a live mapping from names to members."""
        return GroupsView(self)


say_absent(InMemoryChannelLayer, ABSENT)
