"""What is begun by calls that nobody waits for: in order, counted, logged when it fails, and waited for on request."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from typing import Any

from headrace._core import Ledger
from headrace.exceptions import LayerUnavailable

__all__ = ["Later"]

_logger = logging.getLogger("headrace.sockets")


class Later:
    """The calls of one broadcaster that nobody waits for.

    There are two kinds: sends that the layer's own thread carries on, which its ledger knows of, and coroutines that
    run in the broadcaster's loop, one after the other in the order of the calls.

    Args:
        name: Whose calls they are, for the log.

    Attributes:
        lock: Held while any counter is changed, by whichever thread.
        ledger: What the layer's own thread carries on.
    """

    __slots__ = ("_bytes", "_failed", "_failure", "_latest", "_name", "_pending", "_told", "ledger", "lock")

    def __init__(self, name: str) -> None:
        self._name = name
        # Also taken by a signal handler, whose thread may have it already.
        self.lock = threading.RLock()
        # With the loop that each is to run in, which may be closed before, and its size; the oldest first.
        self._pending: dict[Future[Any], tuple[asyncio.AbstractEventLoop, int]] = {}
        self._bytes = 0
        self._latest: Future[Any] | None = None
        self._failed = 0
        self._failure: BaseException | None = None
        # How many failures were raised by a flush.
        self._told = 0
        self.ledger = Ledger()

    @property
    def pending(self) -> int:
        """Calls on their way."""
        return len(self._pending) + self.ledger.pending

    @property
    def failed(self) -> int:
        """Calls that failed."""
        return self._failed + self.ledger.failed

    @property
    def bytes(self) -> int:
        """The sizes of the coroutines on their way."""
        return self._bytes

    def waiting(self) -> tuple[int, int]:
        """Count the coroutines that wait behind the first, and their bytes."""
        with self.lock:
            first = next(iter(self._pending.values()), (None, 0))
            return max(0, len(self._pending) - 1), self._bytes - first[1]

    def is_busy(self) -> bool:
        """Tell whether a coroutine is on its way, so that what comes now has to get in line behind it."""
        if self._pending:
            self._give_up_lost()
        return bool(self._pending)

    def begin(
        self,
        call: Callable[[], Coroutine[Any, Any, Any]],
        loop: asyncio.AbstractEventLoop,
        timeout: float | None = None,
        size: int = 0,
    ) -> None:
        """Have a coroutine function called in the loop when all that was begun before has ended.

        Args:
            call: The coroutine function.
            loop: The loop.
            timeout: Seconds to wait at most for what was begun before; None waits for ever.
            size: The bytes that it counts until it has ended.
        """
        with self.lock:
            future = asyncio.run_coroutine_threadsafe(self._after(self._latest, call, timeout), loop)
            self._latest = future
            self._pending[future] = loop, size
            self._bytes += size
        future.add_done_callback(self._ended)

    async def _after(
        self, earlier: "Future[Any] | None", call: Callable[[], Awaitable[Any]], timeout: float | None
    ) -> None:
        if earlier is not None and not earlier.done():
            await asyncio.wait({asyncio.wrap_future(earlier)}, timeout=timeout)
        await call()

    def _ended(self, future: "Future[Any]") -> None:
        with self.lock:
            self._forget(future)
            if self._latest is future:
                self._latest = None
            # Nobody but the end of its loop cancels one.
            lost = RuntimeError("its event loop has ended") if future.cancelled() else None
            error = lost or future.exception()
            if error is not None:
                self._failed += 1
                self._failure = error
        if error is not None:
            _logger.error("a call of %s that nobody waited for failed: %r", self._name, error)

    def _forget(self, future: "Future[Any]") -> None:
        _, size = self._pending.pop(future, (None, 0))
        self._bytes -= size

    def _give_up_lost(self) -> None:
        """End the first ones if their loop was closed: all behind them would wait for ever."""
        with self.lock:
            while self._pending:
                future, (loop, _) = next(iter(self._pending.items()))
                if not loop.is_closed():
                    return
                with suppress(InvalidStateError):
                    future.set_exception(RuntimeError("its event loop was closed"))
                self._forget(future)

    async def before(self, timeout: float | None = None) -> None:
        """Wait for the coroutines that were begun before, but no longer than so many seconds."""
        latest = self._latest
        if latest is not None and self.is_busy():
            await asyncio.wait({asyncio.wrap_future(latest)}, timeout=timeout)

    def flush(self, timeout: float) -> None:
        """Wait until nothing is on its way, and raise what failed since the last time.

        Raises:
            TimeoutError: Something still is.
            LayerUnavailable: What was sent could not be carried.
            Exception: The latest failure of a call.
        """
        end = time.monotonic() + timeout
        self._give_up_lost()
        unfinished = wait(list(self._pending), timeout).not_done
        if unfinished or not self.ledger.settle(max(0.0, end - time.monotonic())):
            raise TimeoutError(f"calls of {self._name} that are still on their way: {self.pending}")
        failed = self.failed - self._told
        if failed:
            self._told += failed
            failure = self.ledger.fault() or self._failure
            self._failure = None
            reason = f"calls of {self._name} that nobody waited for failed: {failed}; the latest: {failure}"
            if isinstance(failure, ConnectionError):
                raise LayerUnavailable(reason) from failure
            raise RuntimeError(reason) from failure
