"""A worker: runs an application on the messages of named channels, outside any server.

Each channel has one instance of the application at a time, with the scope ``{"type": "channel", "channel": name}``
and the messages in the order in which they were sent. A message is taken from the layer only when the instance asks
for it, so what one process cannot handle yet is left to others. The instance starts with the first message of its
channel. If it ends or fails, that is logged, and the next message starts another; its message is not tried again.

If the layer fails for one channel, the others are stopped and the worker ends with that exception. Nothing is lost
silently: a message that was taken and could not be handed over is logged, with its channel and type.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from asgiref.compatibility import guarantee_single_callable

from headrace._signals import stop_on_signals
from headrace.exceptions import StopConsumer
from headrace.typing import AnyChannelLayer, Application, Message, Scope

__all__ = ["Worker"]

logger: logging.Logger = logging.getLogger(__name__)


class Worker:
    """Listens on channels and runs one instance of an application for each.

    Use ``run()`` in a program and ``await handle()`` in a running loop. A worker runs once.

    Differs from Channels' worker: a listener that fails ends the worker at once, also with several channels; a
    message waits in the layer until the application asks for it, not in an unbounded queue of the worker; SIGINT and
    SIGTERM let running handlers finish; what an application sends is refused by name. How many messages of one
    channel are handled at once is up to the consumer (``concurrency``).

    Args:
        application: An ASGI application, mostly a ``ProtocolTypeRouter`` with a ``ChannelNameRouter``.
        channels: The names of the channels, without order.
        channel_layer: Where to receive from.
        max_applications: How many instances may be there at once. If one more is needed, the one that has waited
            longest for a message is ended; one that is handling a message is not.
        grace: For how many seconds running handlers may go on after ``stop()``, before they are cancelled.

    Raises:
        ValueError: The layer is None, or there is no channel, or a number is out of its range.
        TypeError: ``channels`` is one str.
    """

    def __init__(
        self,
        application: Application,
        channels: Iterable[str],
        channel_layer: AnyChannelLayer | None,
        max_applications: int = 1000,
        *,
        grace: float = 10.0,
    ) -> None:
        if channel_layer is None:
            raise ValueError("Channel layer is not valid")
        if isinstance(channels, str):
            raise TypeError(f"channels must be a list of names, got the str {channels!r}")
        self.application = application
        self.channels: list[str] = list(dict.fromkeys(channels))
        self.channel_layer = channel_layer
        self.max_applications = max_applications
        self.grace = grace
        if not self.channels:
            raise ValueError("channels must name at least one channel to listen on, got none")
        if max_applications < 1:
            raise ValueError(f"max_applications must be at least 1, got {max_applications!r}")
        if not grace >= 0:
            raise ValueError(f"grace must be a number of seconds, at least 0, got {grace!r}")
        # The one asked for a message longest ago comes first.
        self._instances: dict[str, _Instance] = {}
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    def run(self) -> None:
        """Run ``arun()`` in an event loop of its own, to its end."""
        try:
            asyncio.run(self.arun())
        except KeyboardInterrupt:
            # Where a loop cannot handle signals, as on Windows.
            logger.info("worker interrupted")

    async def arun(self) -> None:
        """Run ``handle()``; SIGINT or SIGTERM stops it, and a second one does so without grace.

        Leaves the signals alone if this is not the main thread.
        """
        with stop_on_signals(self.stop):
            await self.handle()

    async def handle(self) -> None:
        """Listen until ``stop()``; then let running handlers finish, for at most ``grace`` seconds.

        Cancelling it stops it without grace.

        Raises:
            Exception: What the layer raised when a message was to be received from it.
            ValueError: A message had no type.
        """
        listeners = [asyncio.create_task(self.listener(channel)) for channel in self.channels]
        try:
            await self._first_failure(listeners)
        except asyncio.CancelledError:
            self._stop_now.set()
            raise
        finally:
            for listener in listeners:
                listener.cancel()
            results = await asyncio.gather(*listeners, return_exceptions=True)
            await self._finish()
        failures = [(c, r) for c, r in zip(self.channels, results, strict=True) if isinstance(r, Exception)]
        for channel, failure in failures[1:]:
            logger.error("listening on channel %r failed too", channel, exc_info=failure)
        if failures:
            channel, failure = failures[0]
            failure.add_note(f"the worker was listening on channel {channel!r}")
            raise failure

    def stop(self) -> None:
        """Take no more messages, and end when running handlers have; called again, cancel them."""
        (self._stop_now if self._stop.is_set() else self._stop).set()

    async def listener(self, channel: str) -> None:
        """Bring the messages of one channel to its instance of the application, until ``stop()``."""
        instance: _Instance | None = None
        while True:
            left = await instance.wants() if instance else None
            if self._stop.is_set() and not left:
                return
            message = left or await self.channel_layer.receive(channel)
            if not message.get("type", None):
                raise ValueError("Worker received message with no type.")
            if instance is None or not instance.give(message):
                instance = await self._restart(instance, channel, message)

    async def application_send(self, scope: Scope, message: Message) -> None:
        """Refuse what an application sends.

        Raises:
            RuntimeError: Always. Channels' worker raises NotImplementedError.
        """
        raise RuntimeError(
            f"a worker has no client: nobody to send {message.get('type')!r} to on channel {scope['channel']!r}; "
            "a handler answers through the channel layer"
        )

    async def application_exception(self, exception: Exception, application_details: dict[str, Any]) -> None:
        """Log that an application failed; overridable.

        Args:
            exception: What it raised.
            application_details: Its ``scope``.
        """
        channel = application_details["scope"]["channel"]
        logger.error("application on channel %r failed; the next message starts it anew", channel, exc_info=exception)

    async def _first_failure(self, listeners: Iterable["asyncio.Task[None]"]) -> None:
        """Wait until a listener fails, or all have ended, or the worker is to stop."""
        stopped = asyncio.create_task(self._stop.wait())
        pending = {*listeners}
        try:
            while pending and not stopped.done():
                done, _ = await asyncio.wait({*pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
                pending -= done
                if any(task.cancelled() or task.exception() for task in done):
                    return
        finally:
            stopped.cancel()

    async def _restart(self, old: "_Instance | None", channel: str, message: Message) -> "_Instance":
        """Start an instance with its first message, after the old one has ended."""
        if old is not None:
            try:
                await asyncio.wait({old.task})
            except asyncio.CancelledError:
                _log_lost(channel, [message], "the worker stopped")
                raise
        self._make_room(channel)
        instance = self._instances[channel] = _Instance(self, channel, message)
        return instance

    def _make_room(self, channel: str) -> None:
        """End the instance that has waited longest, if there are as many as there may be."""
        self._instances.pop(channel, None)
        running = [name for name, instance in self._instances.items() if not instance.task.done()]
        if len(running) >= self.max_applications:
            idle = next((name for name in running if self._instances[name].waiting), None)
            if idle is not None:
                self._instances[idle].stop()

    def _asked(self, channel: str, instance: "_Instance") -> None:
        """Note that an instance has asked for a message: it is now the one that waits since the latest time."""
        if self._instances.get(channel) is instance:
            self._instances[channel] = self._instances.pop(channel)

    async def _finish(self) -> None:
        """Let what runs come to its end, or cancel it after the time of grace."""
        instances = {instance.task: instance for instance in self._instances.values()}
        running = {task for task in instances if not task.done()}
        idle = {task for task in running if instances[task].waiting}
        for task in running:
            instances[task].stop()
        hurry = asyncio.create_task(self._stop_now.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace):
                while running and not hurry.done():
                    await asyncio.wait({*running, hurry}, return_when=asyncio.FIRST_COMPLETED)
                    running = {task for task in running if not task.done()}
        hurry.cancel()
        for task in running:
            if task not in idle:
                logger.warning("application on channel %r did not finish and is cancelled", instances[task].channel)
            task.cancel()
        await asyncio.gather(hurry, *instances, return_exceptions=True)
        for instance in instances.values():
            _log_lost(instance.channel, instance.left(), "the worker stopped")


class _Instance:
    """One run of the application on one channel, from a first message to its end."""

    def __init__(self, worker: Worker, channel: str, first: Message) -> None:
        self.channel = channel
        self._worker = worker
        self._scope: Scope = {"type": "channel", "channel": channel}
        # At most one message that was not asked for; None tells receive() to end the run, and stays.
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._messages.put_nowait(first)
        self._taken = 0
        self._stopping = False
        # How many calls of receive() wait, and whether that is more than there are messages. Set at the end, too.
        self._receiving = 0
        self._wanting = asyncio.Event()
        self._ended = False
        # An eager task runs here, until it first waits: everything that it uses has been set.
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(self._end)

    @property
    def waiting(self) -> bool:
        """Whether the application waits for a message."""
        return self._wanting.is_set() and not self._stopping and not self.task.done()

    def give(self, message: Message) -> bool:
        """Hand a message over, if the application can still take one."""
        if self._stopping or self.task.done():
            return False
        self._messages.put_nowait(message)
        self._update_wanting()
        return True

    async def wants(self) -> Message | None:
        """Wait until the application asks for a message or has ended; return one that it has not taken.

        Raises:
            Exception: What ``application_exception`` raised.
        """
        await self._wanting.wait()
        if not self.task.done():
            return None
        if self.task.cancelled():
            logger.error("application on channel %r was cancelled; the next message starts it anew", self.channel)
        else:
            self.task.result()
        left = self.left()
        if left and not self._taken:
            _log_lost(self.channel, left, "the application that it started did not receive it")
            return None
        return left[0] if left else None

    def left(self) -> list[Message]:
        """Take back what the application has not taken."""
        left = []
        while not self._messages.empty():
            message = self._messages.get_nowait()
            if message is not None:
                left.append(message)
        return left

    def stop(self) -> None:
        """Let ``receive()`` end the run by StopConsumer, when it is next called or has been."""
        self._stopping = True
        self._messages.put_nowait(None)

    def _end(self, _: "asyncio.Task[None]") -> None:
        self._ended = True
        self._wanting.set()

    async def _run(self) -> None:
        application = guarantee_single_callable(self._worker.application)  # type: ignore[no-untyped-call]  # asgiref
        try:
            await application(self._scope, self._receive, self._send)
        except StopConsumer:
            pass
        except Exception as error:
            await self._worker.application_exception(error, {"scope": self._scope})
            return
        if not self._stopping:
            logger.info("application on channel %r ended; the next message starts it anew", self.channel)

    async def _receive(self) -> Message:
        self._receiving += 1
        self._update_wanting()
        try:
            message = await self._messages.get()
        finally:
            self._receiving -= 1
            self._update_wanting()
        if message is None:
            self._messages.put_nowait(None)
            raise StopConsumer
        self._taken += 1
        return message

    def _update_wanting(self) -> None:
        if self._receiving > self._messages.qsize():
            self._worker._asked(self.channel, self)
            self._wanting.set()
        elif not self._ended:
            self._wanting.clear()

    async def _send(self, message: Message) -> None:
        await self._worker.application_send(self._scope, message)


def _log_lost(channel: str, messages: Iterable[Message], why: str) -> None:
    for message in messages:
        logger.error("message %r of channel %r was not handled: %s", message.get("type"), channel, why)
