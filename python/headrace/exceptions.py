"""What headrace raises.

Exception
├── RequestAborted            the client went away before the request was read
│   └── RequestTimeout        it took too long to send it
├── AcceptConnection          raised by a handler: accept the connection being opened
├── DenyConnection            raised by a handler: refuse it
├── StopConsumer              raised by a handler: this consumer is done
├── ChannelFull               the channel holds as many messages as its capacity; nothing was sent
├── ChannelEmpty              nothing was waiting on the channel
├── MessageTooLarge           the message is longer than the layer carries
├── AssertionError
│   ├── InvalidMessage        the message is not one that a layer can carry; nothing was sent
│   └── ForeignChannel        nothing can be received here from this channel; a ValueError too
├── RuntimeError
│   └── LayerClosed           the layer was closed by its owner
├── ConnectionError
│   └── LayerUnavailable      the server could not be reached, or did not answer in time; with the cause
├── ConnectionClosed          the client can no longer be sent to
└── ValueError
    └── InvalidChannelLayerError    a channel layer is configured wrongly

The names that Django Channels has as well are the classes of ``channels.exceptions`` themselves
when channels can be imported: either import then catches what either package raises. Importing
them does not import Django.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

__all__ = [
    "AcceptConnection",
    "ChannelEmpty",
    "ChannelFull",
    "ConnectionClosed",
    "DenyConnection",
    "ForeignChannel",
    "InvalidChannelLayerError",
    "InvalidMessage",
    "LayerClosed",
    "LayerUnavailable",
    "MessageTooLarge",
    "RequestAborted",
    "RequestTimeout",
    "StopConsumer",
]


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


class ChannelFull(Exception):
    """The channel holds as many messages as its capacity; the message was not sent."""


class MessageTooLarge(Exception):
    """The message is longer than the layer carries; it was not sent."""


class StopConsumer(Exception):
    """Raised by a handler to end its consumer without an error."""


class LayerClosed(RuntimeError):
    """The layer was closed by its owner and takes no further calls."""


class LayerUnavailable(ConnectionError):
    """The layer's server could not be reached, or did not answer in time; the cause is ``__cause__``.

    A message that was being sent may or may not have got through.
    """


class ChannelEmpty(Exception):
    """Nothing was waiting on the channel, and the caller did not want to wait."""


class ConnectionClosed(Exception):
    """The consumer has closed the connection, or the client has gone: nothing can be sent any more."""


class InvalidMessage(AssertionError):
    """The message is not a dict, or holds what a layer cannot carry; it was not sent.

    An ``AssertionError``, because that is what Channels' layers raise; raised explicitly, so
    ``python -O`` keeps it.
    """


class ForeignChannel(AssertionError, ValueError):
    """The channel is of another process, or of none: only who made a name with a ``!`` receives from it.

    An ``AssertionError``, because that is what channels_redis raises.
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
