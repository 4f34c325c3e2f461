"""What headrace raises.

Exception
├── HeadraceError             the root of headrace's own
│   ├── LayerError            the layer could not do what was asked of it now
│   │   ├── ChannelEmpty      nothing was waiting on the channel
│   │   ├── ChannelFull       the channel holds as many messages as its capacity; nothing was sent
│   │   ├── LayerClosed       the layer was closed by its owner; a RuntimeError too
│   │   └── LayerUnavailable  the server could not be reached, or did not answer in time; with the cause; a
│   │                         ConnectionError too, and where redis-py is imported its own ConnectionError
│   ├── ConnectionClosed      the client can no longer be sent to
│   ├── ForeignChannel        nothing can be received here from this channel; an AssertionError and a ValueError too
│   ├── ImproperlyConfigured  a route or a setting says what cannot be; a ValueError too
│   └── InvalidMessage        the message is not one that a layer can carry; nothing was sent; an AssertionError too
├── RequestAborted            the client went away before the request was read
│   └── RequestTimeout        it took too long to send it
├── AcceptConnection          raised by a handler: accept the connection being opened
├── DenyConnection            raised by a handler: refuse it
├── StopConsumer              raised by a handler: this consumer is done
├── MessageTooLarge           the message is longer than the layer carries
└── ValueError
    └── InvalidChannelLayerError    a channel layer is configured wrongly

What is not below ``HeadraceError`` Django Channels has as well, and ``ChannelFull``. When channels can be imported,
these names are the classes of ``channels.exceptions`` themselves: either import then catches what either package
raises. The ``ChannelFull`` that a layer of headrace raises is a ``LayerError`` as well. Importing them does not import
Django.
"""

import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Self

__all__ = [
    "AcceptConnection",
    "ChannelEmpty",
    "ChannelFull",
    "ConnectionClosed",
    "DenyConnection",
    "ForeignChannel",
    "HeadraceError",
    "ImproperlyConfigured",
    "InvalidChannelLayerError",
    "InvalidMessage",
    "LayerClosed",
    "LayerError",
    "LayerUnavailable",
    "MessageTooLarge",
    "RequestAborted",
    "RequestTimeout",
    "StopConsumer",
]


class HeadraceError(Exception):
    """The root of the exceptions that are headrace's own."""


class LayerError(HeadraceError):
    """The layer could not do what was asked of it now: it is closed or unavailable, or the channel is full or empty."""


class RequestAborted(Exception):
    """The client went away before the whole request was read."""


class RequestTimeout(RequestAborted):
    """The client took too long to send the whole request."""


class InvalidChannelLayerError(ValueError):
    """A channel layer is configured wrongly, or lacks what is asked of it."""


class AcceptConnection(Exception):
    """Raised by a handler of a new connection to accept it."""


class DenyConnection(Exception):
    """Raised by a handler of a new connection to refuse it."""


class ChannelFull(LayerError):
    """The channel holds as many messages as its capacity; the message was not sent."""


class MessageTooLarge(Exception):
    """The message is longer than the layer carries; it was not sent."""


class StopConsumer(Exception):
    """Raised by a handler to end its consumer without an error."""


class LayerClosed(LayerError, RuntimeError):
    """The layer was closed by its owner and takes no further calls."""


class LayerUnavailable(LayerError, ConnectionError):
    """The layer's server could not be reached, or did not answer in time; the cause is ``__cause__``.

    A message that was being sent may or may not have got through.

    In a process that has imported redis-py it is a ``redis.exceptions.ConnectionError`` too, for code that catches
    what channels_redis raises. Nothing else is imported for that: redis-py takes longer than all of headrace.
    """

    def __new__(cls, *args: object) -> Self:
        # At the end of the interpreter there are no modules any more.
        redis = sys.modules.get("redis.exceptions") if sys.modules else None
        base = getattr(redis, "ConnectionError", None)
        made: type[Any] = _also(base) if base and cls is LayerUnavailable else cls
        error: Self = super().__new__(made, *args)
        return error


@cache
def _also(base: type[Exception]) -> type[LayerUnavailable]:
    """Give the class of those that are redis-py's too. It shows and pickles as LayerUnavailable."""

    class Both(LayerUnavailable, base):  # type: ignore[valid-type, misc]
        def __init__(self, *args: object) -> None:
            # OSError's does not call that of redis-py, which sets attributes.
            base.__init__(self, *args)

        def __repr__(self) -> str:
            return ConnectionError.__repr__(self)

        def __reduce__(self) -> tuple[type[LayerUnavailable], tuple[object, ...]]:
            return LayerUnavailable, self.args

    Both.__name__ = LayerUnavailable.__name__
    Both.__qualname__ = LayerUnavailable.__qualname__
    return Both


class ChannelEmpty(LayerError):
    """Nothing was waiting on the channel, and the caller did not want to wait."""


class ConnectionClosed(HeadraceError):
    """The consumer has closed the connection, or the client has gone: nothing can be sent any more."""


class InvalidMessage(HeadraceError, AssertionError):
    """The message is not a dict, or holds what a layer cannot carry; it was not sent.

    An ``AssertionError``, because that is what Channels' layers raise; raised explicitly, so
    ``python -O`` keeps it.
    """


class ForeignChannel(HeadraceError, AssertionError, ValueError):
    """The channel is of another process, or of none: only who made a name with a ``!`` receives from it.

    An ``AssertionError``, because that is what channels_redis raises.
    """


class ImproperlyConfigured(HeadraceError, ValueError):
    """A route or a setting says what cannot be.

    If Django is in use, what is raised is a subclass of Django's ``ImproperlyConfigured`` too.
    """


# A type checker sees the classes above in both cases: names, bases and constructors are the same.
if not TYPE_CHECKING:
    with suppress(ImportError):
        from channels.exceptions import (
            AcceptConnection,
            ChannelFull,
            DenyConnection,
            InvalidChannelLayerError,
            MessageTooLarge,
            RequestAborted,
            RequestTimeout,
            StopConsumer,
        )


if TYPE_CHECKING or issubclass(ChannelFull, LayerError):
    _ChannelFull = ChannelFull
else:

    class _ChannelFull(LayerError, ChannelFull):
        """What headrace raises as ``ChannelFull`` where that is Channels' own; it shows itself under that name."""

        def __reduce__(self) -> tuple[Any, ...]:
            return _full, self.args, self.__dict__

    _ChannelFull.__name__ = _ChannelFull.__qualname__ = "ChannelFull"


def _full(*args: object) -> ChannelFull:
    # Pickle finds a class by its name, and by that name there may be Channels'.
    return _ChannelFull(*args)
