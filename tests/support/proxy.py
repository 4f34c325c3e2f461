"""A TCP proxy between clients and a server, which fails as a network does."""

import re
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Thread
from types import TracebackType
from typing import Self

from tests.support.ports import HOST, Port
from tests.support.resp import SECONDS

# What it takes from one side before the other has taken what came before: little, so that a slow client is slow for
# the server as well.
_ROOM = 65536
# The answer to TIME: the seconds, and the rest.
_TIME = re.compile(rb"\*2\r\n\$10\r\n(\d{10})\r\n(?=\$\d\r\n\d+\r\n)")
# The beginning of a message of pub/sub, up to the name of its channel.
_MESSAGE = re.compile(rb"(\r\n\$7\r\nmessage\r\n\$\d+\r\n).")
# Closing with this resets the connection instead of ending it.
_RESET = struct.pack("ii", 1, 0)


class _Way:
    """One direction of a connection."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes] = lambda held: held
    ) -> None:
        self._change = change
        self.source = source
        self.sink = sink
        self.held = b""
        self.ended = False
        self.passed = 0

    def move(self) -> int:
        """Move what can be moved; say how many bytes were passed on."""
        if not self.held and not self.ended:
            try:
                self.held = self._change(self.source.recv(_ROOM))
                self.ended = not self.held
            except BlockingIOError:
                return 0
        try:
            sent = self.sink.send(self.held) if self.held else 0
        except BlockingIOError:
            return 0
        self.held = self.held[sent:]
        return sent


class _Link:
    """A client's connection and the one to the server that goes with it."""

    def __init__(self, client: socket.socket, server: socket.socket, change: Callable[[bytes], bytes]) -> None:
        self.sockets = (client, server)
        self.to_server = _Way(client, server)
        self.to_client = _Way(server, client, change)
        for one in self.sockets:
            one.setblocking(False)

    def wants(self, one: socket.socket) -> int:
        """Say what to wait for at one of its sockets."""
        events = 0
        for way in (self.to_server, self.to_client):
            if way.source is one and not way.held and not way.ended:
                events |= selectors.EVENT_READ
            if way.sink is one and way.held:
                events |= selectors.EVENT_WRITE
        return events

    @property
    def over(self) -> bool:
        """Tell whether one side has ended and all that it said has been passed on."""
        return any(way.ended and not way.held for way in (self.to_server, self.to_client))

    def close(self, *, reset: bool) -> None:
        for one in self.sockets:
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()


class Proxy:
    """Passes on what clients and a server say to each other while the context lasts; what fails is said by its methods.

    Each method returns when it is so. None needs the other side: a server that was killed or paused is nothing to it.

    Args:
        port: The port of the server.

    Attributes:
        port: Its own, always the same.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._port = Port()
        self.port = self._port.number
        self._accepted = self._to_server = self._to_client = 0
        self._links: set[_Link] = set()
        self._listening: socket.socket | None = None
        self._flowing = True
        self._ahead = 0
        self._mislaying = False
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._selector = selectors.DefaultSelector()
        self._bell, self._waker = socket.socketpair()
        self._bell.setblocking(False)
        self._thread = Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._open = True

    def __enter__(self) -> Self:
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._order(self._close)
        self._thread.join(SECONDS)
        self._selector.close()
        self._bell.close()
        self._waker.close()
        self._port.release()

    @property
    def url(self) -> str:
        """Give the address for a client without a password."""
        return f"redis://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """Give how many clients are connected."""
        self._order(self._nothing)
        return len(self._links)

    @property
    def accepted(self) -> int:
        """Give how many connections there were."""
        self._order(self._nothing)
        return self._accepted

    @property
    def to_server(self) -> int:
        """Give how many bytes were passed on to the server."""
        self._order(self._nothing)
        return self._to_server

    @property
    def to_client(self) -> int:
        """Give how many bytes were passed on to clients, at least those that they have."""
        self._order(self._nothing)
        return self._to_client

    def lead_to(self, port: int) -> None:
        """Lead those who connect from now on to another server, as a load balancer does."""
        self._order(partial(setattr, self, "_target", port))

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._order(self._cut)

    def refuse(self) -> None:
        """Refuse new connections; those that are there stay."""
        self._order(self._deafen)

    def accept(self) -> None:
        """Accept new connections again."""
        self._order(self._listen)

    def stall(self) -> None:
        """Pass nothing on any more: connections stay, new ones can be opened, and nobody hears from the other side."""
        self._order(lambda: self._flow(flowing=False))

    def flow(self) -> None:
        """Pass on again, also what was held back."""
        self._order(lambda: self._flow(flowing=True))

    def set_clock(self, ahead: int) -> None:
        """Have the server's clock be so many seconds ahead of what it is, or behind."""
        self._ahead = ahead

    def mislay_messages(self) -> None:
        """Have all messages of pub/sub lost from now on: they come on a channel to which nobody subscribed."""
        self._mislaying = True

    def _order(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._orders.append((action, done))
        self._waker.send(b"!")
        done.result(SECONDS)

    # The rest is run by the thread alone, and _listen once before there is one.

    def _run(self) -> None:
        while self._open:
            for key, _ in self._selector.select():
                if key.fileobj is self._bell:
                    self._obey()
                elif not self._flowing:
                    # The order to stall came with these.
                    continue
                elif key.fileobj is self._listening:
                    self._welcome()
                elif key.data in self._links:
                    self._pass_on(key.data)

    def _obey(self) -> None:
        self._bell.recv(4096)
        while self._orders:
            action, done = self._orders.popleft()
            try:
                action()
            except Exception as error:  # it is raised where the order was given
                done.set_exception(error)
            else:
                done.set_result(None)

    def _welcome(self) -> None:
        if self._listening is None:
            return
        try:
            client, _ = self._listening.accept()
        except BlockingIOError:
            return
        self._accepted += 1
        try:
            server = socket.create_connection((HOST, self._target), SECONDS)
        except OSError:
            client.close()
            return
        link = _Link(client, server, self._change)
        self._links.add(link)
        self._watch(link)

    def _pass_on(self, link: _Link) -> None:
        try:
            self._to_server += link.to_server.move()
            self._to_client += link.to_client.move()
        except OSError:
            self._drop(link, reset=True)
        else:
            if link.over:
                self._drop(link, reset=False)
            else:
                self._watch(link)

    def _change(self, answers: bytes) -> bytes:
        if self._mislaying:
            answers = _MESSAGE.sub(rb"\1?", answers)
        if not self._ahead:
            return answers
        return _TIME.sub(lambda time: b"*2\r\n$10\r\n%d\r\n" % (int(time[1]) + self._ahead), answers)

    def _watch(self, link: _Link) -> None:
        for one in link.sockets:
            events = link.wants(one) if self._flowing else 0
            known = one in self._selector.get_map()
            if events and known:
                self._selector.modify(one, events, link)
            elif events:
                self._selector.register(one, events, link)
            elif known:
                self._selector.unregister(one)

    def _drop(self, link: _Link, *, reset: bool) -> None:
        for one in link.sockets:
            if one in self._selector.get_map():
                self._selector.unregister(one)
        self._links.discard(link)
        link.close(reset=reset)

    def _nothing(self) -> None:
        """Be between two steps: what was passed on has been counted."""

    def _cut(self) -> None:
        for link in list(self._links):
            self._drop(link, reset=True)

    def _flow(self, *, flowing: bool) -> None:
        self._flowing = flowing
        for link in self._links:
            self._watch(link)
        if self._listening is not None:
            # Who connects now is taken by the kernel, and hears nothing.
            if flowing and self._listening not in self._selector.get_map():
                self._selector.register(self._listening, selectors.EVENT_READ)
            elif not flowing and self._listening in self._selector.get_map():
                self._selector.unregister(self._listening)

    def _listen(self) -> None:
        if self._listening is None:
            self._listening = socket.create_server((HOST, self.port), backlog=128)
            self._listening.setblocking(False)
            if self._flowing:
                self._selector.register(self._listening, selectors.EVENT_READ)

    def _deafen(self) -> None:
        if self._listening is not None:
            if self._listening in self._selector.get_map():
                self._selector.unregister(self._listening)
            self._listening.close()
            self._listening = None

    def _close(self) -> None:
        self._deafen()
        self._cut()
        self._open = False
