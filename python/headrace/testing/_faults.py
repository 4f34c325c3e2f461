"""A channel layer whose faults are made at will: channels that are full, messages that come late or never.

The faults are in the sending. What arrives is received natively, so that consumers run on such a layer as on any other.
"""

import fnmatch
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from headrace._core import Ledger, SendReport
from headrace._layers.memory import InMemoryChannelLayer
from headrace.exceptions import _ChannelFull

__all__ = ["Fault", "Faults", "FaultyLayer"]

Message = dict[str, Any]
Pairs: TypeAlias = list[tuple[str, Message]]


class Fault:
    """One fault, from when it was made until it is lifted: by ``lift``, or at the end of a ``with``.

    Attributes:
        kind: What happens to messages.
        pattern: The glob of the channels and groups that it happens to.
        count: How many messages it happened to; each member of a group counts.
    """

    def __init__(self, faults: "Faults", kind: Literal["fill", "hold", "drop"], pattern: str) -> None:
        self.kind = kind
        self.pattern = pattern
        self.count = 0
        self._faults = faults
        self._matches = re.compile(fnmatch.translate(pattern)).match

    def lift(self) -> None:
        """End the fault, and deliver what it holds. Lifting it again does nothing.

        Raises:
            LayerClosed: The layer was closed, and something was held.
        """
        self._faults._lift(self)

    def __repr__(self) -> str:
        return f"<Fault {self.kind} {self.pattern!r} count={self.count}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.lift()


class Faults:
    """The fault switch of a layer: ``layer.faults``. Any thread may use it.

    Each pattern is a glob. It is compared with the channel of a ``send``, the group of a ``group_send``, and each
    channel of that group: ``faults.fill(channel)`` makes one member of its groups full. Where two faults match, the
    later one happens. A fault is in force at once; ``with`` ends it.

    The layer's own statistics know nothing of faults: each ``Fault`` counts what it does.
    """

    def __init__(self, deliver: Callable[[Pairs], SendReport]) -> None:
        self._deliver = deliver
        self._faults: list[Fault] = []
        self._held: list[tuple[Fault, str, Message]] = []
        self._lock = threading.Lock()

    def fill(self, pattern: str) -> Fault:
        """Let channels be full: ``send`` raises ``ChannelFull``, sends to many report ``dropped_full``."""
        return self._make("fill", pattern)

    def hold(self, pattern: str) -> Fault:
        """Let messages be late: they are accepted, and arrive when they are released, in order.

        The members of a group are those at the time of sending: one that has left by then gets the message.
        """
        return self._make("hold", pattern)

    def drop(self, pattern: str) -> Fault:
        """Let messages be lost without a word: the sender is told that they were delivered."""
        return self._make("drop", pattern)

    @property
    def held(self) -> int:
        """How many messages are held now."""
        return len(self._held)

    def release(self, count: int | None = None) -> SendReport:
        """Deliver messages that are held, the oldest first.

        Args:
            count: How many at most; None for all.

        Returns:
            How many arrived, and how many found their channel full.

        Raises:
            ValueError: ``count`` is negative.
            LayerClosed: The layer was closed.
        """
        if count is not None and count < 0:
            raise ValueError(f"count must be None or not negative, got {count!r}")
        with self._lock:
            end = len(self._held) if count is None else count
            released, self._held = self._held[:end], self._held[end:]
        return self._deliver([(channel, message) for _, channel, message in released])

    def clear(self) -> None:
        """Lift all faults; what is held is delivered.

        Raises:
            LayerClosed: The layer was closed, and something is held.
        """
        with self._lock:
            self._faults = []
        if self._held:
            self.release()

    def _make(self, kind: Literal["fill", "hold", "drop"], pattern: str) -> Fault:
        fault = Fault(self, kind, pattern)
        with self._lock:
            self._faults = [fault, *self._faults]
        return fault

    def _lift(self, fault: Fault) -> None:
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]
            released = [entry for entry in self._held if entry[0] is fault]
            self._held = [entry for entry in self._held if entry[0] is not fault]
        if released:
            self._deliver([(channel, message) for _, channel, message in released])

    def _find(self, name: object) -> Fault | None:
        """Return the fault in force for a channel or a group."""
        if not isinstance(name, str):
            return None
        return next((fault for fault in self._faults if fault._matches(name)), None)

    def _happen(self, fault: Fault, channel: str, message: Message) -> bool:
        """Do to a message what the fault does; tell whether the sender believes that it was delivered."""
        with self._lock:
            fault.count += 1
            if fault.kind == "hold":
                self._held.append((fault, channel, message))
        return fault.kind != "fill"


class FaultyLayer(InMemoryChannelLayer):
    """An ``InMemoryChannelLayer`` with a fault switch, for tests; takes the same arguments.

    Attributes:
        faults: The switch. Without a fault in force the layer is like any other.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.faults: Faults = Faults(self._deliver)
        self._copier = InMemoryChannelLayer(strict=self._config.strict)

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """Send as ``InMemoryChannelLayer.send`` does, unless a fault says otherwise."""
        self._send_faultily(channel, message)

    def send_sync(self, channel: str, message: Mapping[str, Any], confirm: bool = False) -> None:
        """Do what ``send`` does, from any thread, with or without a loop."""
        self._send_faultily(channel, message)

    def _send_faultily(self, channel: str, message: Mapping[str, Any]) -> None:
        fault = self.faults._find(channel)
        if fault is None:
            super().send_sync(channel, message)
        elif not self.faults._happen(fault, channel, self._checked(channel, message)):
            raise _ChannelFull(channel)

    async def group_send(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Send as ``InMemoryChannelLayer.group_send`` does, but to the members that a fault is in force for."""
        return self._group_send_faultily(group, message, exclude)

    def group_send_sync(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = (), confirm: bool = False
    ) -> SendReport:
        """Do what ``group_send`` does, from any thread, with or without a loop."""
        return self._group_send_faultily(group, message, exclude)

    def _group_send_unattended(self, group: str, message: Mapping[str, Any], ledger: Ledger) -> bool:
        self._group_send_faultily(group, message)
        return True

    def _group_send_faultily(
        self, group: str, message: Mapping[str, Any], exclude: str | Collection[str] = ()
    ) -> SendReport:
        faults = self._faults_in(group)
        if not faults:
            return super().group_send_sync(group, message, exclude=exclude)
        passed = {exclude} if isinstance(exclude, str) else set(exclude)
        # Before anything is sent: the message may not be one.
        copies = [
            (fault, channel, self._checked(channel, message))
            for channel, fault in faults.items()
            if channel not in passed
        ]
        report = super().group_send_sync(group, message, exclude=passed | set(faults))
        believed = self._happen(copies)
        processes = int(bool(copies) and not report.processes)
        total = report + SendReport(believed.count(True), believed.count(False), 0, processes=processes)
        return SendReport(
            total.delivered,
            total.dropped_full,
            total.dropped_other,
            processes=total.processes,
            position=report.position,
        )

    async def send_many(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Send as ``InMemoryChannelLayer.send_many`` does, but where a fault is in force."""
        pairs = list(pairs)
        found = [self.faults._find(pair[0]) if isinstance(pair, tuple) and pair else None for pair in pairs]
        copies = [(fault, pair[0], self._checked(*pair)) for pair, fault in zip(pairs, found, strict=True) if fault]
        report = await super().send_many([pair for pair, fault in zip(pairs, found, strict=True) if not fault])
        believed = self._happen(copies)
        return report + SendReport(believed.count(True), believed.count(False), 0, processes=believed.count(True))

    async def group_send_many(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Send as ``InMemoryChannelLayer.group_send_many`` does, but where a fault is in force."""
        pairs = list(pairs)
        if not self.faults._faults:
            return await super().group_send_many(pairs, exclude=exclude)
        await self._copier.group_send_many(
            pairs, exclude=exclude
        )  # has no groups: finds what is wrong with the pairs, if anything
        reports = [self._group_send_faultily(group, message, exclude) for group, message in pairs]
        return sum(reports, SendReport(0, 0, 0, processes=0))

    def _deliver(self, pairs: Pairs) -> SendReport:
        return self._core.send_many(pairs)

    def _faults_in(self, group: str) -> dict[str, Fault]:
        """Name the members of a group that a fault is in force for."""
        if not self.faults._faults:
            return {}
        of_group = self.faults._find(group)
        found = {channel: of_group or self.faults._find(channel) for channel in self.group_channels(group)}
        return {channel: fault for channel, fault in found.items() if fault}

    def _checked(self, channel: str, message: Mapping[str, Any]) -> Message:
        """Copy a message as the layer would, and raise as the layer would."""
        self.channel_stats(channel)  # raises for a name that is not valid, and if the layer is closed
        copier = self._copier
        private = f"copy-{threading.get_ident()}"
        copier.send_sync(private, message)
        return copier.receive_nowait(private)

    def _happen(self, copies: list[tuple[Fault, str, Message]]) -> list[bool]:
        """Let the faults happen; tell of each copy whether the sender believes that it was delivered."""
        return [self.faults._happen(*copy) for copy in copies]
