"""The types of ASGI, as headrace's consumers and routers use them, and the types of channel layers.

``Scope``, ``Message``, ``Receive``, ``Send`` and ``Application`` are those of Starlette and
FastAPI, so that an application of either fits where headrace wants an ``Application``, and the
other way round.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from headrace._core import ChannelStats, GroupStats, LayerStats, SendReport
    from headrace._layers.histories import History
    from headrace._layers.presences import Presence
    from headrace._layers.redis_stats import RedisStats
    from headrace._layers.subscription import Subscription

__all__ = ["AnyChannelLayer", "Application", "ChannelLayer", "Frames", "Message", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
"""What is known of one connection for as long as it lives; ``scope["type"]`` is its kind."""

Message: TypeAlias = MutableMapping[str, Any]
"""One event; ``message["type"]`` names it."""

Receive: TypeAlias = Callable[[], Awaitable[Message]]
"""Wait for the next event from the client."""

Send: TypeAlias = Callable[[Message], Awaitable[None]]
"""Send one event to the client."""

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application: runs one connection from its scope to its end."""


class Frames(Protocol):
    """Writes ready-made frames to one client: the extension ``headrace.frames`` of a scope, which servers may offer."""

    @property
    def send(self) -> Send:
        """The server's own ``send`` of this connection."""

    @property
    def window_bits(self) -> int | None:
        """Of how many bits, from 9 to 15, the window is for which frames may be compressed, each by itself; or None."""

    def write(self, frame: bytes, /) -> bool:
        """Write a whole frame as it is, behind what was sent before, without waiting.

        Returns False, having written nothing, if that cannot be done now; then ``send`` is to be used. It is called in
        the event loop of the connection.
        """


class AnyChannelLayer(Protocol):
    """What every channel layer can do, whoever wrote it: Channels' interface.

    A layer of headrace can do more, see ``ChannelLayer``.
    """

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to one channel."""

    async def receive(self, channel: str) -> dict[str, Any]:
        """Wait for the next message on a channel."""

    async def new_channel(self) -> str:
        """Make the name of a channel that nobody else has."""

    async def group_add(self, group: str, channel: str) -> object:
        """Make a channel a member of a group."""

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group."""

    async def group_send(self, group: str, message: dict[str, Any]) -> object:
        """Send a message to every member of a group."""


class ChannelLayer(Protocol):
    """What every layer of headrace can do, in this process or over Redis; their classes say it in full.

    It is the type of what ``get_channel_layer()`` returns and of a consumer's ``channel_layer``. A project whose layer
    is not headrace's has only what ``AnyChannelLayer`` has.

    A message is a ``dict``: a ``TypedDict`` is one too. Any other mapping raises ``InvalidMessage``.
    """

    extensions: ClassVar[list[str]]
    """The parts of Channels' specification that it has beyond sending and receiving: groups and flush."""

    @property
    def expiry(self) -> float:
        """Seconds that a message may wait to be received."""

    @property
    def group_expiry(self) -> float:
        """Seconds that a membership lasts after its latest ``group_add``, unless its channel has an inbox."""

    @property
    def capacity(self) -> int:
        """How many messages a channel holds."""

    @property
    def capacity_bytes(self) -> int:
        """Bytes that a mailbox holds behind its first message."""

    @property
    def history_bytes(self) -> int:
        """Bytes that the messages of all groups with a history may take together."""

    # Channels' methods.

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """Send a message to one channel."""

    async def receive(self, channel: str) -> dict[str, Any]:
        """Wait for the next message of a channel. Cancelling loses nothing."""

    async def new_channel(self, prefix: str = "specific") -> str:
        """Make the name of a channel that nobody else has."""

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        """Put a channel in a group, or renew its membership; with ``since`` it receives what it missed first."""

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; no error if it is not in it."""

    async def group_send(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = ()
    ) -> "SendReport":
        """Send a message to every channel of a group but the excluded; report how many got it."""

    async def group_close(
        self, group: str, code: int = 4403, reason: str = "", *, exclude: str | Collection[str] = ()
    ) -> "SendReport":
        """Close the WebSockets of a group, in all processes."""

    async def flush(self) -> None:
        """Drop all messages and all memberships."""

    async def close(self) -> None:
        """Refuse everything from now on."""

    # Many at once.

    async def send_many(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> "SendReport":
        """Send messages to channels, given as pairs. A full channel is counted, and no error."""

    async def group_send_many(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: str | Collection[str] = ()
    ) -> "SendReport":
        """Send messages to groups, given as pairs."""

    async def receive_many(self, channel: str, limit: int) -> list[dict[str, Any]]:
        """Wait for a message and take those behind it too, up to ``limit``."""

    def receive_nowait(self, channel: str) -> dict[str, Any]:
        """Take the next message if there is one, or raise ``ChannelEmpty``."""

    def subscription(
        self,
        *groups: str,
        max_backlog: int | None = None,
        max_backlog_bytes: int | None = None,
        overflow: Literal["drop_new", "drop_old", "coalesce"] = "drop_new",
        since: str | int | None = None,
    ) -> "Subscription":
        """Make a channel that is in these groups while a context lasts; entering it gives the channel's inbox."""

    # The newest messages of groups.

    async def group_position(self, group: str) -> str | None:
        """Return where the stream of a group is, or None if it has no history."""

    async def group_history(self, group: str, since: str | None = None, limit: int = 100) -> "History":
        """Read what is kept of a group: the newest messages, or those behind a position."""

    def group_position_sync(self, group: str) -> str | None:
        """Do what ``group_position`` does."""

    def group_history_sync(self, group: str, since: str | None = None, limit: int = 100) -> "History":
        """Do what ``group_history`` does."""

    # Who is present in groups.

    async def presence_add(self, group: str, channel: str, *, key: str, meta: Mapping[str, Any] | None = None) -> None:
        """Put a channel of this process in a group, and show it there under a key."""

    async def presence_update(self, group: str, channel: str, *, meta: Mapping[str, Any]) -> bool:
        """Give a channel that is present another meta; tell whether it is present."""

    async def presence_discard(self, group: str, channel: str) -> None:
        """Show a channel no longer in a group, of which it stays a member."""

    async def presence(self, group: str) -> "Presence":
        """Read who is present in a group, as its members were told last."""

    async def presence_count(self, group: str) -> tuple[int, int]:
        """Count the keys and the channels that are present in a group."""

    async def group_count_everywhere(self, group: str) -> int:
        """Count the channels of a group in all processes, if the setting ``counted`` names it."""

    def presence_add_sync(self, group: str, channel: str, *, key: str, meta: Mapping[str, Any] | None = None) -> None:
        """Do what ``presence_add`` does."""

    def presence_update_sync(self, group: str, channel: str, *, meta: Mapping[str, Any]) -> bool:
        """Do what ``presence_update`` does."""

    def presence_discard_sync(self, group: str, channel: str) -> None:
        """Do what ``presence_discard`` does."""

    def presence_sync(self, group: str) -> "Presence":
        """Do what ``presence`` does."""

    def presence_count_sync(self, group: str) -> tuple[int, int]:
        """Do what ``presence_count`` does."""

    def group_count_everywhere_sync(self, group: str) -> int:
        """Do what ``group_count_everywhere`` does."""

    # From any thread, with or without a loop.

    def send_sync(self, channel: str, message: Mapping[str, Any], confirm: bool = False) -> None:
        """Do what ``send`` does; over Redis it waits for the server if it is to ``confirm``."""

    def receive_sync(self, channel: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the next message of a channel, blocking this thread."""

    def new_channel_sync(self, prefix: str = "specific") -> str:
        """Do what ``new_channel`` does."""

    def group_add_sync(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        """Do what ``group_add`` does."""

    def group_discard_sync(self, group: str, channel: str) -> None:
        """Do what ``group_discard`` does."""

    def group_send_sync(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = (), confirm: bool = False
    ) -> "SendReport":
        """Do what ``group_send`` does; over Redis it waits for the server if it is to ``confirm``."""

    def group_close_sync(
        self,
        group: str,
        code: int = 4403,
        reason: str = "",
        *,
        exclude: str | Collection[str] = (),
        confirm: bool = False,
    ) -> "SendReport":
        """Do what ``group_close`` does; over Redis it waits for the server if it is to ``confirm``."""

    def send_many_sync(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> "SendReport":
        """Do what ``send_many`` does."""

    def group_send_many_sync(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: str | Collection[str] = ()
    ) -> "SendReport":
        """Do what ``group_send_many`` does."""

    def receive_many_sync(self, channel: str, limit: int, timeout: float | None = None) -> list[dict[str, Any]]:
        """Do what ``receive_many`` does, blocking this thread."""

    def flush_sync(self) -> None:
        """Do what ``flush`` does."""

    def close_sync(self) -> None:
        """Do what ``close`` does."""

    # Who is where, and what became of the messages.

    def close_channel(self, channel: str) -> None:
        """Drop the messages of a channel and take it out of all its groups."""

    def group_channels(self, group: str) -> list[str]:
        """List the channels of a group in this process."""

    def group_count(self, group: str) -> int:
        """Count the channels of a group in this process."""

    def channel_groups(self, channel: str) -> list[str]:
        """List the groups that a channel is in."""

    def stats(self) -> "LayerStats | RedisStats":
        """Read the layer's counters."""

    def channel_stats(self, channel: str) -> "ChannelStats":
        """Read one channel's counters."""

    def group_stats(self, group: str) -> "GroupStats":
        """Read one group's counters."""

    # What Channels' base class tells of names and capacities.

    def get_capacity(self, channel: str) -> int:
        """Return how many messages a channel holds."""

    def require_valid_channel_name(self, name: str, receive: bool = False) -> bool:
        """Return True for the name of a channel, or raise ``TypeError``."""

    def require_valid_group_name(self, name: str) -> bool:
        """Return True for the name of a group, or raise ``TypeError``."""
