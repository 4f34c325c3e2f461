"""Which method of a consumer handles a message: decided once for each class and type of message."""

import inspect
import keyword
from collections.abc import Callable, Mapping
from typing import Any

from headrace._layers.close_message import CLOSE_TYPE

__all__ = ["CLOSE", "FORWARD", "Handlers", "get_handler_name"]

FORWARD = "_forward"
"""Stands for a handler where a message goes to the socket without one; no handler can have this name."""


def get_handler_name(message: Mapping[str, Any]) -> str:
    """Return the name of the method that handles a message: its type, with underscores for dots.

    Raises:
        ValueError: The message has no type, or one that no handler can have.
    """
    if "type" not in message:
        raise ValueError("Incoming message has no 'type' attribute")
    kind = message["type"]
    if not isinstance(kind, str):
        raise ValueError(f"Malformed type in message: expected a str, got {kind!r}")
    name = kind.replace(".", "_")
    if name.startswith("_"):
        raise ValueError("Malformed type in message (leading underscore)")
    return name


CLOSE = "_close"
"""Stands for a handler where a message tells the consumer to close."""

_CLOSE_HANDLER = get_handler_name({"type": CLOSE_TYPE})
"""What a consumer may define to handle that message itself, as one of Channels' does."""

_HANDLERS_FOR_ALL = frozenset({"send_json", "receive_json", "websocket_receive", "websocket_disconnect"})
"""Methods of headrace's own classes that messages from the layer may call, as projects on Channels have them do."""


class Handlers:
    """The handlers of one class of consumers.

    What is kept is the name of a method and not the method: a handler may be set on an instance, or replaced by a test.

    Args:
        consumer_class: The class.
        forwarded: The types of messages from the layer that go to the socket without a handler.
    """

    def __init__(self, consumer_class: type, forwarded: Mapping[str, str | None]) -> None:
        self._class = consumer_class
        self._forwarded = frozenset(forwarded)
        self._reserved = _reserved_by(consumer_class)
        if not callable(getattr(consumer_class, _CLOSE_HANDLER, None)):
            self._reserved |= {_CLOSE_HANDLER}
        self.of_client: dict[str, str] = {}
        self.of_layer: dict[str, str] = dict.fromkeys(forwarded, FORWARD)

    def name_for_client(self, message: Mapping[str, Any]) -> str:
        """Return the name of the handler of a message from the client's server.

        Raises:
            ValueError: No handler can have its type.
        """
        name = get_handler_name(message)
        self._keep(self.of_client, message["type"], name)
        return name

    def name_for_layer(self, message: Mapping[str, Any]) -> str:
        """Return the name of the handler of a message from the layer.

        Raises:
            ValueError: No handler can have its type, or its type names what headrace defines and the consumer's class
                does not override, and what only the server or the consumer itself may call.
        """
        name = get_handler_name(message)
        if message["type"] in self._forwarded:
            return FORWARD
        if name in self._reserved:
            if name == _CLOSE_HANDLER:
                return CLOSE
            raise ValueError(
                f"message type {message['type']!r} from the channel layer names {self._class.__name__}.{name}, which "
                "is no handler but a method of the consumer's interface; send a type of your own and handle that, or "
                "override the method"
            )
        self._keep(self.of_layer, message["type"], name)
        return name

    def forwards(self, message: object) -> bool:
        """Tell whether a message is of a type that is forwarded."""
        kind = message.get("type") if isinstance(message, Mapping) else None
        return isinstance(kind, str) and kind in self._forwarded

    def closes(self, message: object) -> bool:
        """Tell whether a message of the layer tells the consumer to close."""
        kind = message.get("type") if isinstance(message, Mapping) else None
        return kind == CLOSE_TYPE and _CLOSE_HANDLER in self._reserved

    def find(self, consumer: object, message: Mapping[str, Any]) -> Callable[[Any], Any]:
        """Return the handler of a message, which may be one of the client's.

        Raises:
            ValueError: The message has no type, or one that has no handler.
        """
        try:
            name = self.of_client[message["type"]]
        except (KeyError, TypeError):
            name = self.name_for_client(message)
        handler: Any = getattr(consumer, name, None)
        if callable(handler):
            called: Callable[[Any], Any] = handler
            return called
        if name == _CLOSE_HANDLER:
            # A worker's, from a queue that is in a group: it has no connection that could be closed.
            return _pass_by_sync if getattr(self._class, "_sync", False) else _pass_by
        if name == "http_request" and hasattr(self._class, "websocket_connect"):
            raise ValueError(
                f"No handler for message type {message['type']} in {self._class.__name__}, which is for WebSockets; "
                "put a ProtocolTypeRouter before it that takes HTTP elsewhere"
            )
        no_handler = f"No handler for message type {message['type']} in {self._class.__name__}"
        if handler is not None:
            raise ValueError(f"{no_handler}: its {name} is no method but a {type(handler).__name__}")
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{no_handler}: no method can have this name; send a type of words with dots between them")
        raise ValueError(f"{no_handler}; define its method {name}(self, message)")

    def _keep(self, names: dict[str, str], kind: str, name: str) -> None:
        # Only what the class has: types that somebody makes up must not fill the memory.
        if callable(getattr(self._class, name, None)):
            names[kind] = name


async def _pass_by(_message: Any) -> None:
    """Do nothing."""


def _pass_by_sync(_message: Any) -> None:
    """Do nothing."""


def _reserved_by(consumer_class: type) -> frozenset[str]:
    """Name what headrace's own classes define and no message from the layer may call.

    What the user's class overrides with a method is a handler of the user's.
    """
    own = [base for base in consumer_class.__mro__ if _is_of_interface(base.__module__)]
    # Annotated is what instances get: the scope, and base_send.
    names = {name for base in own for name in (*vars(base), *inspect.get_annotations(base))}
    return frozenset(
        name
        for name in names - _HANDLERS_FOR_ALL
        if not name.startswith("_") and not _is_overridden(consumer_class, own, name)
    )


def _is_of_interface(module: str) -> bool:
    # The demo is an application like any other.
    return module.startswith("headrace.") and not module.startswith("headrace._demo.")


def _is_overridden(consumer_class: type, own: list[type], name: str) -> bool:
    definer = next((base for base in consumer_class.__mro__ if name in vars(base)), None)
    return definer is not None and definer not in own and callable(getattr(consumer_class, name))
