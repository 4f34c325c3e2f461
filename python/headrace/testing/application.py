"""Run an ASGI application in a test and speak to it as its server would."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import asgiref.testing

from headrace._db import spare_transactions
from headrace.testing._loops import settle
from headrace.typing import Message, Receive, Scope, Send

__all__ = ["ApplicationCommunicator"]

# Seconds for the clean-up of an application that was cancelled.
_CANCEL_TIMEOUT = 5.0


class ApplicationCommunicator(asgiref.testing.ApplicationCommunicator):
    """Runs one ASGI application with one scope, from the first message that it is sent.

    Also a context manager: ``async with ApplicationCommunicator(app, scope) as communicator``. At its end the client
    goes away, the application ends, and its exception is raised unless it was raised before.

    The application runs in an empty context, as it would in a server. Old database connections of Django's are closed
    as in a server, but not in a transaction, so that the one of a ``TestCase`` lives on; Channels' own
    ``database_sync_to_async`` spares it too from then on.

    Differs from Channels: needs neither Django nor daphne; ``application`` may be a consumer class; a receive that
    waits raises the application's exception when it happens, and not when the time is over; ``wait`` does not swallow
    the cancellation of the test, nor hang on an application that does.

    Args:
        application: An ASGI application, or a consumer class.
        scope: The scope that it gets.
        cancel_on_timeout: Whether an application that does not answer in time is cancelled. None: it is, as in
            Channels, but not inside ``async with``.
    """

    # On the class too: ``__del__`` looks for it even if a constructor raised early.
    _future: asyncio.Task[None] | None = None
    # Of a test's any mapping.
    _input_queue: asyncio.Queue[Any]
    _output_queue: "_OutputQueue"

    def __init__(self, application: Callable[..., Any], scope: Scope, *, cancel_on_timeout: bool | None = None) -> None:
        super().__init__(_unbound(application), scope)  # type: ignore[no-untyped-call]  # asgiref has no types
        self.cancel_on_timeout = cancel_on_timeout
        # Set when the application sends or ends.
        self._news = asyncio.Event()
        self._input_queue = asyncio.Queue()
        self._output_queue = _OutputQueue(self._news)
        # Whether a caller was given the application's exception.
        self._raised = False

    @property
    def input_queue(self) -> asyncio.Queue[Message]:
        """What the application has yet to receive."""
        return self._input_queue

    @property
    def output_queue(self) -> asyncio.Queue[Message]:
        """What the application has sent and nobody has received."""
        return self._output_queue

    @property
    def future(self) -> asyncio.Task[None]:
        """The task of the application; starts it if it is not started."""
        if self._future is None:
            loop = asyncio.get_running_loop()
            spare_transactions()
            work = _run(self.application, self.scope, self._input_queue.get, self._output_queue.put)
            self._future = loop.create_task(work, context=contextvars.Context())
            # Not a method of self: a communicator that nobody holds any more cancels its application.
            news = self._news
            self._future.add_done_callback(lambda _: news.set())
        return self._future

    async def send_input(self, message: Mapping[str, Any]) -> None:
        """Send a message to the application. Does not block.

        Raises:
            BaseException: What the application raised, if it has.
        """
        self._raise_failure()
        self._input_queue.put_nowait(message)

    async def receive_output(self, timeout: float | None = 1) -> Message:
        """Wait for the next message of the application. Cancelling this loses no message.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: Nothing came in time. The application was cancelled, unless ``cancel_on_timeout`` is off.
            BaseException: What the application raised, if it has.
        """
        self._raise_failure()
        if not await self._output_or_failure(timeout):
            await self._time_out(f"the application sent nothing within {timeout} s")
        if self._output_queue.empty():
            self._raise_failure()
        return self._output_queue.get_nowait()

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Tell whether the application sends nothing for a time, or at all.

        Differs from Channels: with ``timeout=0`` everything that is ready runs first, see ``settle``; so this is
        the answer for whatever the application does without waiting for threads or clocks. The answer False comes at
        once.

        Args:
            timeout: Seconds to wait for a message; 0 lets the loop settle instead.
            interval: Seconds to wait at least, if ``timeout`` is not 0.

        Raises:
            BaseException: What the application had raised before this was called.
            RuntimeError: The loop does not settle.
        """
        self._raise_failure()
        if timeout <= 0:
            await settle()
            return self._output_queue.empty()
        try:
            async with asyncio.timeout(max(timeout, interval)):
                while self._output_queue.empty():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return True
        return False

    async def wait(self, timeout: float | None = 1) -> None:
        """Wait until the application has ended. One that was cancelled has ended, too.

        Args:
            timeout: Seconds to wait at most. Afterwards the application is cancelled, as in Channels; if
                ``cancel_on_timeout`` is off, it goes on.

        Raises:
            TimeoutError: It has not ended in time, and was not cancelled.
            BaseException: What the application raised.
        """
        await asyncio.wait({self.future}, timeout=timeout)
        if self.future.done():
            self._raise_failure(but_cancelled=True)
        elif self._spares():
            raise TimeoutError(f"the application did not end within {timeout} s")
        else:
            await self._cancel()

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application if it runs, without waiting for its end.

        Args:
            exceptions: Raise what the application raised, if it has ended.

        Raises:
            BaseException: What the application raised.
        """
        if self._future is None:
            return
        if not self._future.done():
            self._future.cancel()
        elif exceptions:
            self._raise_failure()

    async def aclose(self, timeout: float = 1) -> None:
        """Tell the application that its client is gone, and wait until it has ended.

        Where the protocol has no word for that, the application is cancelled.

        Args:
            timeout: Seconds to wait at most; then the application is cancelled.

        Raises:
            TimeoutError: It did not end in time.
            BaseException: What the application raised, unless a method of this object has raised it before.
        """
        if self._future is None:
            return
        if not self._future.done():
            await self._say_goodbye(timeout)
        if not self._raised:
            self._raise_failure(but_cancelled=True)

    async def __aenter__(self) -> Self:
        if self._future is not None:
            raise RuntimeError("the application was started before `async with`; start it in there")
        if self.cancel_on_timeout is None:
            self.cancel_on_timeout = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        except Exception as error:
            if exc is None:
                raise
            # What the test says comes first; why the application says otherwise stands below it.
            exc.add_note(f"the application ended with {error!r}")

    def _farewell(self) -> Message | None:
        """Return the message that says that the client is gone, if the protocol has one."""
        return None

    async def _say_goodbye(self, timeout: float) -> None:
        farewell = self._farewell()
        if farewell is None:
            await self._cancel()
            return
        self._input_queue.put_nowait(farewell)
        await asyncio.wait({self.future}, timeout=timeout)
        if not self.future.done():
            await self._cancel()
            raise TimeoutError(f"the application did not end within {timeout} s of {farewell['type']!r}")

    def _spares(self) -> bool:
        """Tell whether the application goes on after a timeout."""
        return self.cancel_on_timeout is False

    async def _output_or_failure(self, timeout: float | None) -> bool:
        """Wait for a message or for the application's exception; tell whether either came in time."""
        try:
            async with asyncio.timeout(timeout):
                while self._output_queue.empty() and not self._failed():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _time_out(self, message: str) -> None:
        if not self._spares():
            await self._cancel()
        raise TimeoutError(message)

    async def _cancel(self) -> None:
        """Cancel the application and wait until it has cleaned up; raise what goes wrong in that."""
        self.future.cancel()
        await asyncio.wait({self.future}, timeout=_CANCEL_TIMEOUT)
        if not self.future.done():
            raise RuntimeError(f"the application was cancelled and has not ended in {_CANCEL_TIMEOUT:g} s")
        self._raise_failure(but_cancelled=True)

    def _failed(self) -> bool:
        future = self.future
        return future.done() and (future.cancelled() or future.exception() is not None)

    def _raise_failure(self, but_cancelled: bool = False) -> None:
        """Raise what the application raised; with ``but_cancelled`` not for one that was cancelled."""
        future = self.future
        if not self._failed() or (but_cancelled and future.cancelled()):
            return
        self._raised = True
        future.result()


class _OutputQueue(asyncio.Queue[Message]):
    """A queue that sets an event whenever something is put in, whoever does it."""

    def __init__(self, news: asyncio.Event) -> None:
        super().__init__()
        self._news = news
        self.last: Message = {}  # what was put in last, received or not

    def _put(self, item: Message) -> None:
        super()._put(item)
        self.last = item
        self._news.set()


async def _run(application: Callable[..., Awaitable[None]], scope: Scope, receive: Receive, send: Send) -> None:
    """Make a coroutine, which a task needs, of what may be another awaitable."""
    await application(scope, receive, send)


def _unbound(application: Callable[..., Any]) -> Callable[..., Any]:
    """Return the application that a consumer class makes for each scope; anything else as it is."""
    as_asgi = getattr(application, "as_asgi", None) if isinstance(application, type) else None
    return application if as_asgi is None else as_asgi()
