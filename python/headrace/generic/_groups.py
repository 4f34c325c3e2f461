"""The groups of a WebSocket consumer: it joins and leaves them, resumes in them, and is present there."""

from functools import partial
from typing import Any

from asgiref.sync import async_to_sync

from headrace._dispatch import Session, Shared, SyncSession, receives_natively
from headrace._websocket.presence import Following
from headrace._websocket.resume import Progress, dropped_of, echoed, position_of_client, without_position
from headrace.exceptions import InvalidChannelLayerError

__all__ = ["GroupSession", "SyncGroupSession"]


class GroupSession(Session):
    """What headrace keeps of the groups of a WebSocket consumer.

    Attributes:
        progress: How far the client has come, if it may go on there later.
        echo: The subprotocol to accept with if the consumer chooses none; None for none.
        following: The lists of its groups, if it is present in them.
    """

    __slots__ = ("echo", "following", "progress")

    may_resume = True

    def __init__(self, shared: Shared[Any]) -> None:
        super().__init__(shared)
        self.progress: Progress | None = None
        self.echo: str | None = None
        self.following: Following | None = None

    def group_layer(self, consumer: Any) -> Any:
        """Return the channel layer of a consumer that has groups.

        Raises:
            InvalidChannelLayerError: There is none, or it has no groups.
        """
        layer = consumer.channel_layer
        if layer is not None and hasattr(layer, "group_add"):
            return layer
        raise InvalidChannelLayerError("BACKEND is unconfigured or doesn't support groups")

    def _native_layer(self, consumer: Any, setting: str) -> Any:
        layer = self.group_layer(consumer)
        if receives_natively(layer):
            return layer
        raise InvalidChannelLayerError(
            f"{self.shared.name} has {setting} = True, which needs a channel layer of headrace, got "
            f"{type(layer).__name__}"
        )

    async def join(self, consumer: Any) -> None:
        """Join the groups of the class."""
        for group in consumer.groups or ():
            if self.progress is None:
                await self.group_layer(consumer).group_add(group, consumer.channel_name)
            else:
                await self.join_group(consumer, group)

    def begin_resuming(self, consumer: Any) -> None:
        """Read where the client says that it was.

        Raises:
            InvalidChannelLayerError: The layer cannot know.
        """
        layer, scope = self._native_layer(consumer, "resume"), consumer.scope
        self.progress = Progress(position_of_client(scope), partial(dropped_of, layer, consumer.channel_name))
        self.echo = echoed(scope)
        consumer.scope = without_position(scope)

    def begin_presence(self, consumer: Any) -> None:
        """Prepare to be present in the groups of the consumer.

        Raises:
            InvalidChannelLayerError: The layer tells nobody who is present.
        """
        layer = self._native_layer(consumer, "presence")
        if not layer._presence_types():
            raise InvalidChannelLayerError(
                f"{self.shared.name} has presence = True, and its channel layer has no setting 'presence': give it one "
                "that fits the consumer's groups, such as {'room.*': {}}"
            )
        self.following = Following(layer, consumer.channel_name)

    async def join_group(self, consumer: Any, group: str, newest: int = 0) -> None:
        """Join a group, and be present there."""
        await self._join_group(consumer, group, newest)
        if self.following is not None:
            self.following.joined(group)
            if self.following.due and self.incoming is not None:
                # Who waits for the next message is to enter it.
                self.incoming.inbox.call_away()

    async def _join_group(self, consumer: Any, group: str, newest: int = 0) -> None:
        """Join a group, behind what its client has or else with its newest messages."""
        layer, channel, progress = self.group_layer(consumer), consumer.channel_name, self.progress
        if progress is not None:
            progress.keep(layer.channel_groups(channel))
            if progress.has(group):
                # Its membership is renewed.
                newest, progress = 0, None
        # Before the group is joined: what it is sent from now on has either been missed too, or comes live.
        end = None if progress is None else await layer.group_position(group)
        if progress is None or end is None:
            await (layer.group_add(group, channel, since=newest) if newest else layer.group_add(group, channel))
            return
        since = progress.said(group)
        if newest:
            if since is not None and not (await layer.group_history(group, since, limit=1)).complete:
                since = None
            if since is None and not (await layer.group_history(group, limit=1)).messages:
                newest = 0
        progress.joining(group, since if since is not None else None if newest else end)
        try:
            found = await layer.group_add(group, channel, since=newest or end if since is None else since)
        except BaseException:
            progress.left(group)
            raise
        progress.joined(group, since, end, since is not None and found)
        if progress.due and self.incoming is not None:
            # Who waits for the next message has something to tell.
            self.incoming.inbox.call_away()

    async def tell_resumed(self, consumer: Any, group: str, complete: bool) -> None:
        """Call ``resumed``."""
        await consumer.resumed(group, complete)

    async def leave(self, consumer: Any, code: int) -> None:
        """Leave the groups of the class, and call ``disconnect``."""
        failed: Exception | None = None
        for group in consumer.groups or ():
            try:
                await self.group_layer(consumer).group_discard(group, consumer.channel_name)
            except Exception as error:
                failed = failed or error
        self.begin_leaving()
        await consumer.disconnect(code)
        if failed is not None:
            raise failed


class SyncGroupSession(GroupSession, SyncSession):
    """What headrace keeps of the groups of a consumer whose methods are plain."""

    __slots__ = ()

    def join_sync(self, consumer: Any) -> None:
        """Join the groups of the class."""
        for group in consumer.groups or ():
            if self.progress is None:
                self._in_layer(consumer, "group_add", group)
            else:
                self.in_loop(self.join_group, consumer, group)

    async def tell_resumed(self, consumer: Any, group: str, complete: bool) -> None:
        """Call ``resumed``."""
        await self.in_thread(consumer.resumed, group, complete)

    async def leave(self, consumer: Any, code: int) -> None:
        """Leave the groups of the class, and call ``disconnect``."""
        await self.in_thread(self.leave_sync, consumer, code)

    def leave_sync(self, consumer: Any, code: int) -> None:
        """Leave the groups of the class, and call ``disconnect``."""
        failed: Exception | None = None
        for group in consumer.groups or ():
            try:
                self._in_layer(consumer, "group_discard", group)
            except Exception as error:
                failed = failed or error
        self.begin_leaving()
        self.call(consumer.disconnect, code)
        if failed is not None:
            raise failed

    def _in_layer(self, consumer: Any, method: str, group: str) -> None:
        layer = self.group_layer(consumer)
        # Asked of the class: layers that pass on what they lack, as that of channels_redis, need a loop for that.
        if hasattr(type(layer), f"{method}_sync"):
            getattr(layer, f"{method}_sync")(group, consumer.channel_name)
        else:
            async_to_sync(getattr(layer, method))(group, consumer.channel_name)
