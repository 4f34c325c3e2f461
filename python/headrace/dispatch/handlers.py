"""Which method of a consumer handles a message: decided once for each class and type of message."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["FORWARD", "Handlers", "get_handler_name"]

FORWARD = "_forward"
"""The method that forwards a message to the socket without a handler."""


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
        self._reserved = _api_of(consumer_class)
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
            ValueError: No handler can have its type, or its type names a method of the consumer's own interface, which
                is not for others to call.
        """
        name = get_handler_name(message)
        if message["type"] in self._forwarded:
            return FORWARD
        if name in self._reserved:
            raise ValueError(
                f"message type {message['type']!r} from the channel layer names {self._class.__name__}.{name}, which "
                "is no handler but a method of the consumer's interface; send a type of your own and handle that"
            )
        self._keep(self.of_layer, message["type"], name)
        return name

    def forwards(self, message: object) -> bool:
        """Tell whether a message is of a type that is forwarded."""
        kind = message.get("type") if isinstance(message, Mapping) else None
        return isinstance(kind, str) and kind in self._forwarded

    def find(self, consumer: object, name: str, message: Mapping[str, Any]) -> Callable[[Any], Any]:
        """Return the handler of that name.

        Raises:
            ValueError: The consumer has none.
        """
        handler: Callable[[Any], Any] | None = getattr(consumer, name, None)
        if handler:
            return handler
        if name == "http_request" and hasattr(self._class, "websocket_connect"):
            raise ValueError(
                f"No handler for message type {message['type']} in {self._class.__name__}, which is for WebSockets; "
                "put a ProtocolTypeRouter before it that takes HTTP elsewhere"
            )
        raise ValueError(
            f"No handler for message type {message['type']} in {self._class.__name__}; "
            f"define its method {name}(self, message)"
        )

    def _keep(self, names: dict[str, str], kind: str, name: str) -> None:
        # Only what the class has: types that somebody makes up must not fill the memory.
        if getattr(self._class, name, None):
            names[kind] = name


def _api_of(consumer_class: type) -> frozenset[str]:
    """Name what headrace's own classes define, but for settings that a class replaced by a method of its own."""
    own = [base for base in consumer_class.__mro__ if base.__module__.startswith("headrace.")]
    # Annotated is what instances get: the scope, and base_send.
    names = {name for base in own for name in (*vars(base), *inspect.get_annotations(base))}
    return frozenset(
        name for name in names if not name.startswith("_") and not _is_replaced_setting(consumer_class, own, name)
    )


def _is_replaced_setting(consumer_class: type, own: list[type], name: str) -> bool:
    values = [vars(base)[name] for base in own if name in vars(base)]
    is_setting = bool(values) and not any(callable(value) or isinstance(value, classmethod) for value in values)
    return is_setting and inspect.isroutine(getattr(consumer_class, name))
