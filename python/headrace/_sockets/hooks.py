"""What a connection asks of the socket server that it serves: its settings, and the hooks of its class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from headrace._layers.mailbox import Overflow
from headrace._sockets.payload import Encoder
from headrace._websocket.expiry import ExpiresAt
from headrace._websocket.rate import Rate
from headrace.typing import Scope

__all__ = ["Hooks", "Server"]


class Server(Protocol):
    """The socket server; ``BaseSocketServer`` says what its attributes are. Its hooks are called by name."""

    scope: Scope
    max_backlog: int | None
    max_backlog_bytes: int | None
    read_ahead_bytes: int
    overflow: Overflow
    grace_period: float | None
    thread_sensitive: bool
    ws_encoder: Encoder
    ws_encoder_is_bytes: bool
    ws_decoder: Callable[[Any], Any]
    subprotocol: str | None

    def async_handle_received_broadcast(self, channel: str, data: Any) -> Any:
        """Take what was broadcast to a topic."""


@dataclass(eq=False)
class Hooks:
    """What is known of the hooks of a class.

    Attributes:
        unchanged: The methods of the base class: as hooks they need no thread.
        takes_code: ``disconnect`` takes the code.
        is_guarded: Not everybody is let in.
        rate: How much each client may send; None for any amount.
        has_told_rate: The log was told that a client of the class has sent more.
        expires_at: When each connection ends; None if the class does not say.
        presents: They are present in their topics.
    """

    unchanged: frozenset[Any]
    takes_code: bool = True
    is_guarded: bool = False
    rate: Rate | None = None
    has_told_rate: bool = False
    expires_at: ExpiresAt | None = None
    presents: bool = False
