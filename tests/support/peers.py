"""Layers in other processes, which do what they are told: what a fleet does is tested with one."""

import asyncio
import multiprocessing
import os
import pickle
import pkgutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

from tests.support.waiting import SECONDS

# A process of its own in every respect: nothing is inherited by fork.
_CONTEXT = multiprocessing.get_context("spawn")
_OURS = "headrace.layers.RedisChannelLayer"
CHANNELS_REDIS = "channels_redis.pubsub.RedisPubSubChannelLayer"


class Process:
    """A process that holds a layer at a time; started once for many tests: it takes longer than most of them."""

    def __init__(self) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._numbers = count()
        self._asked: dict[int, Future[Any]] = {}
        self._lock = Lock()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it call a function of ``_Desk``, and return at once."""
        answer: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._asked[number] = answer
            self._connection.send((number, name, args, kwargs))
        return answer

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, result, error = self._connection.recv()
                answer = self._asked.pop(number)
                if error is None:
                    answer.set_result(result)
                else:
                    answer.set_exception(error)
        for answer in self._asked.values():
            answer.set_exception(ConnectionError("the process has ended"))

    @property
    def alive(self) -> bool:
        """Tell whether it was not ended."""
        return not self._connection.closed

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self._process.pid is not None:
            os.kill(self._process.pid, number)

    def end(self) -> None:
        """End it at once, by SIGKILL; no error if it was ended."""
        if not self.alive:
            return
        self._process.kill()
        self._process.join(SECONDS)
        self._reader.join(SECONDS)
        self._connection.close()
        self._process.close()


class Peer:
    """A layer in another process.

    A method of the layer is called by ``call``, which waits for what it returns or raises, or by ``start``, which
    returns a future of that.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    def start(self, name: str, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a method of the layer, and return at once."""
        return self._process.ask("call", name, args, kwargs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the layer, or read an attribute, and wait for the result."""
        return self.start(name, *args, **kwargs).result(SECONDS)

    def cancel(self, name: str, *args: Any) -> None:
        """Cancel the call that was started with these arguments."""
        self._process.ask("cancel", name, args).result(SECONDS)

    def collect(self, channel: str) -> None:
        """Receive from a channel from now on."""
        self._process.ask("collect", channel).result(SECONDS)

    def collected(self, channel: str) -> list[Any]:
        """Give what came there until now."""
        messages: list[Any] = self._process.ask("collected", channel).result(SECONDS)
        return messages

    def stats(self) -> dict[str, Any]:
        """Read the layer's counters; those of the connection under ``connection``."""
        readings: dict[str, Any] = self._process.ask("stats").result(SECONDS)
        return readings

    def link(self) -> dict[str, Any]:
        """Read the counters of the connection."""
        connection: dict[str, Any] = self.stats()["connection"]
        return connection

    def kill(self) -> None:
        """End its process at once, by SIGKILL."""
        self._process.end()

    def stop(self) -> None:
        """Stop its process where it is, by SIGSTOP."""
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its process go on."""
        self._process.signal(signal.SIGCONT)


class Peers:
    """Layers in other processes, in as many processes as there ever were layers at a time."""

    def __init__(self) -> None:
        self._free: list[Process] = []

    @contextmanager
    def peer(self, backend: str = _OURS, **settings: Any) -> Iterator[Peer]:
        """Make a layer in a process that has none, and close it with the context."""
        process = self._free.pop() if self._free else Process()
        try:
            process.ask("open", backend, settings).result(SECONDS)
            yield Peer(process)
            if process.alive:
                process.ask("close").result(SECONDS)
                self._free.append(process)
        except BaseException:
            process.end()
            raise

    def close(self) -> None:
        """End the processes."""
        for process in self._free:
            process.end()


class _Desk:
    """What the process does, in its event loop."""

    def __init__(self) -> None:
        self._layer: Any = None
        self._collected: dict[str, list[Any]] = {}
        self._calls: dict[str, asyncio.Task[Any]] = {}
        self._tasks: list[asyncio.Task[Any]] = []

    async def open(self, backend: str, settings: dict[str, Any]) -> None:
        self._layer = pkgutil.resolve_name(backend)(**settings)

    async def close(self) -> None:
        tasks = [*self._tasks, *self._calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(type(self._layer), "close"):
            await self._layer.close()
        else:
            await self._layer.flush()
        self.__init__()  # type: ignore[misc]  # as new, for the next layer

    async def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = getattr(self._layer, name)
        if not callable(found):
            return found
        result = found(*args, **kwargs)
        if asyncio.iscoroutine(result):
            task = self._calls[repr((name, args))] = asyncio.ensure_future(result)
            try:
                result = await task
            finally:
                self._calls.pop(repr((name, args)), None)
        return _record(result)

    async def cancel(self, name: str, args: tuple[Any, ...]) -> None:
        task = self._calls[repr((name, args))]
        task.cancel()
        await asyncio.wait({task})

    async def collect(self, channel: str) -> None:
        messages = self._collected.setdefault(channel, [])

        async def receive() -> None:
            while True:
                messages.append(await self._layer.receive(channel))

        self._tasks.append(asyncio.create_task(receive()))

    async def collected(self, channel: str) -> list[Any]:
        return self._collected[channel]

    async def stats(self) -> dict[str, Any]:
        stats = self._layer.stats()
        return {**_fields(stats), "connection": _fields(stats.connection)}


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in dir(record) if not name.startswith("_") and name != "connection"}


def _record(result: Any) -> Any:
    """Make plain what comes from the native side."""
    return _fields(result) if type(result).__module__ == "headrace" else result


async def _work(connection: Connection) -> None:
    desk = _Desk()
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[Any] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()

    def read() -> None:
        while True:
            try:
                request = connection.recv()
            except (EOFError, OSError):
                request = None
            loop.call_soon_threadsafe(asked.put_nowait, request)
            if request is None:
                return

    async def answer(number: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = await getattr(desk, name)(*args, **kwargs)
        except asyncio.CancelledError:
            error = RuntimeError("it was cancelled")
        except Exception as raised:  # it is raised where it was asked for
            error = raised
        connection.send((number, result, _portable(error)))

    Thread(target=read, daemon=True).start()
    while (request := await asked.get()) is not None:
        task = asyncio.create_task(answer(*request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _portable(error: Exception | None) -> Exception | None:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # one that wants other arguments
        return RuntimeError(repr(error))
    return error


def _serve(connection: Connection) -> None:
    asyncio.run(_work(connection))
