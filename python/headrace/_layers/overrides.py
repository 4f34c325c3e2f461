"""What a subclass of a layer may override, and what follows from it.

A documented method is the one that the package calls, also where it has a faster way of its own: a subclass that
overrides an asynchronous method gets twins of it that run what the subclass says. What is decided natively cannot be
overridden: a subclass that tries is refused when it is made.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import async_to_sync

from headrace._core import SendReport
from headrace._layers.base import check_limit
from headrace.exceptions import ChannelFull

__all__ = ["DECIDED_NATIVELY", "honour_overrides"]

Message = dict[str, Any]

_NAMES = "names are checked natively, by the rules of every layer: give it names that fit them"
_CAPACITIES = "set channel_capacity, which takes globs and compiled patterns"

DECIDED_NATIVELY: Mapping[str, str] = {
    "get_capacity": _CAPACITIES,
    "compile_capacities": _CAPACITIES,
    **dict.fromkeys(("MAX_NAME_LENGTH", "channel_name_regex", "group_name_regex", "invalid_name_error"), _NAMES),
    **dict.fromkeys(("match_type_and_length", "non_local_name", "valid_channel_names"), _NAMES),
    **dict.fromkeys(("require_valid_channel_name", "require_valid_group_name"), _NAMES),
    **dict.fromkeys(("valid_channel_name", "valid_group_name"), _NAMES),
}
"""What no subclass can change, each with what to do instead."""


class _Twins:
    """What a subclass gets in the place of the native twins of a method that it has overridden."""

    def send_sync(self: Any, channel: str, message: Mapping[str, Any], confirm: bool = False) -> None:
        """Run ``send``, from a thread without an event loop; it waits for the server in any case."""
        _run(self, "send", channel, message)

    def receive_sync(self: Any, channel: str, timeout: float | None = None) -> Message:
        """Run ``receive``, from a thread without an event loop, and give up after so many seconds."""
        try:
            received: Message = _run(self, "receive", channel, timeout=timeout)
        except TimeoutError:
            raise TimeoutError(f"no message on {channel!r} in {timeout} seconds") from None
        return received

    def new_channel_sync(self: Any, prefix: str = "specific") -> str:
        """Run ``new_channel``, from a thread without an event loop."""
        name: str = _run(self, "new_channel", *([] if prefix == "specific" else [prefix]))
        return name

    def group_add_sync(self: Any, group: str, channel: str, since: str | int | None = None) -> bool | None:
        """Run ``group_add``, from a thread without an event loop; with ``since`` only if that is given."""
        complete: bool | None = _run(self, "group_add", group, channel, *([] if since is None else [since]))
        return complete

    def group_discard_sync(self: Any, group: str, channel: str) -> None:
        """Run ``group_discard``, from a thread without an event loop."""
        _run(self, "group_discard", group, channel)

    def send_many_sync(self: Any, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Run ``send_many``, from a thread without an event loop."""
        report: SendReport = _run(self, "send_many", pairs)
        return report

    def group_send_many_sync(self: Any, pairs: Iterable[tuple[str, Mapping[str, Any]]], **options: Any) -> SendReport:
        """Run ``group_send_many``, from a thread without an event loop."""
        report: SendReport = _run(self, "group_send_many", pairs, **options)
        return report

    def receive_many_sync(self: Any, channel: str, limit: int, timeout: float | None = None) -> list[Message]:
        """Run ``receive_many``, from a thread without an event loop, and give up after so many seconds."""
        try:
            received: list[Message] = _run(self, "receive_many", channel, limit, timeout=timeout)
        except TimeoutError:
            raise TimeoutError(f"no message on {channel!r} in {timeout} seconds") from None
        return received

    def flush_sync(self: Any) -> None:
        """Run ``flush``, from a thread without an event loop."""
        _run(self, "flush")

    def close_sync(self: Any) -> None:
        """Run ``close``, from a thread without an event loop."""
        _run(self, "close")

    def connect_sync(self: Any) -> None:
        """Run ``connect``, from a thread without an event loop."""
        _run(self, "connect")

    def group_send_sync(
        self: Any, group: str, message: Mapping[str, Any], *, confirm: bool = False, **options: Any
    ) -> Any:
        """Run ``group_send``, from a thread without an event loop, as ``send_sync`` does it."""
        return _run(self, "group_send", group, message, **options)

    def _group_send_unattended(self, *_arguments: object) -> bool:
        return False

    async def send_many(self: Any, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Run ``send`` for each pair, and count the channels that are full. What it says nothing of is not known."""
        sent = full = 0
        for channel, message in pairs:
            try:
                await self.send(channel, message)
                sent += 1
            except ChannelFull:
                full += 1
        return SendReport(None, full, 0, delivered_here=sent)

    async def group_send_many(self: Any, pairs: Iterable[tuple[str, Mapping[str, Any]]], **options: Any) -> SendReport:
        """Run ``group_send`` for each pair, and add up what it reports. What it says nothing of is not known."""
        total = SendReport(0, 0, 0, processes=0)
        for group, message in pairs:
            report = await self.group_send(group, message, **options)
            total += report if isinstance(report, SendReport) else SendReport(None, 0, 0)
        return total

    async def receive_many(self: Any, channel: str, limit: int) -> list[Message]:
        """Run ``receive``, for one message: whether there are more only waiting would tell."""
        check_limit(limit)
        return [await self.receive(channel)]

    def receive_nowait(self, channel: str) -> Message:
        """Refuse: a ``receive`` that is a coroutine cannot be run without waiting."""
        name = type(self).__name__
        raise TypeError(
            f"{name} overrides receive(), which receive_nowait() would not call: override receive_nowait() too"
        )


_RUN_BY = {
    **{
        f"{method}_sync": (method,)
        for method in ("send", "receive", "new_channel", "group_add", "group_discard", "group_send")
    },
    **{f"{method}_sync": (method,) for method in ("flush", "close", "connect")},
    "send_many": ("send",),
    "send_many_sync": ("send", "send_many"),
    **dict.fromkeys(("receive_many", "receive_nowait"), ("receive",)),
    "receive_many_sync": ("receive", "receive_many"),
    **dict.fromkeys(("group_send_many", "_group_send_unattended"), ("group_send",)),
    "group_send_many_sync": ("group_send", "group_send_many"),
}
"""Each twin, with the methods that it runs, itself or through others. The last is the one that it is the twin of."""


def honour_overrides(subclass: Any, layer_class: type, decided: Mapping[str, str]) -> frozenset[str]:
    """Give a subclass of a layer the twins of what it overrides; return the names of all that it overrides.

    Args:
        subclass: The class that is being made.
        layer_class: The layer of headrace that it is a subclass of.
        decided: What it cannot override, each with what to do instead.

    Raises:
        TypeError: It overrides something of that kind, or a sync method without the asynchronous one.
    """
    classes = subclass.__mro__[: subclass.__mro__.index(layer_class)]

    def depth(name: str) -> int:
        """Return the place of the first class that defines it itself: what was given to a class here does not count."""
        given = vars(_Twins).get(name)
        defined = (place for place, each in enumerate(classes) if vars(each).get(name, given) is not given)
        return next(defined, len(classes))

    overridden = frozenset(name for each in classes for name in vars(each) if depth(name) < len(classes))
    for name in sorted(overridden & decided.keys()):
        raise TypeError(f"{subclass.__name__} overrides {name}, which is not called: {decided[name]}")
    for twin, methods in _RUN_BY.items():
        method = methods[-1]
        if min(map(depth, methods)) < depth(twin):
            setattr(subclass, twin, vars(_Twins)[twin])
        elif depth(twin) < depth(method) and twin.endswith("_sync"):
            raise TypeError(
                f"{subclass.__name__} overrides {twin}() alone, so that {method}() would pass it by: override "
                f"{method}(), which {twin}() runs then, or both"
            )
    return overridden


def _run(layer: Any, method: str, *arguments: Any, timeout: float | None = None, **options: Any) -> Any:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"{type(layer).__name__} overrides {method}(), and its sync twin would block the event loop that runs in "
            f"this thread; await {method}() there"
        )

    async def run() -> Any:
        async with asyncio.timeout(timeout):
            return await getattr(layer, method)(*arguments, **options)

    return async_to_sync(run)()
