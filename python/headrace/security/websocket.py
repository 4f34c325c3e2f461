"""Which pages may open a WebSocket here.

A browser lets every page open a WebSocket to every host, with that host's cookies, and only says in the header Origin
whose page it is. An application that trusts cookies has to look at it. What is not a browser can write there what it
likes: this protects users from other sites, and nobody from clients of other kinds.
"""

import logging
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import ParseResult, urlparse

from headrace._paths import as_application, configuration_error
from headrace._settings import django_settings
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.typing import Receive, Scope, Send

__all__ = ["AllowedHostsOriginValidator", "OriginValidator", "WebsocketDenier"]

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_DEBUG_HOSTS = ["localhost", "127.0.0.1", "[::1]"]


_LONGEST = 200
"""Characters of an Origin that go to the log."""

_logger = logging.getLogger("headrace.security")


class OriginValidator:
    """Runs an application only for WebSockets whose Origin is allowed; others are refused at the handshake (403).

    Differs from Channels' in that an Origin which cannot be parsed is refused like any other (there it is an error of
    the application), and a port in a pattern without a scheme counts.

    Args:
        application: An ASGI application or a consumer class.
        allowed_origins: Patterns: ``"*"`` for all; ``"example.com"`` for a host with any scheme and, unless one is
            given, any port; ``".example.com"`` for it and all below it; ``"https://example.com"``, with a port or
            without, for the default port of the scheme. A missing Origin is allowed only by ``"*"``.

    Raises:
        TypeError: ``allowed_origins`` is a single text, or a pattern is no text.
        ValueError: A pattern cannot be parsed.
    """

    def __init__(self, application: Callable[..., Any], allowed_origins: Collection[str]) -> None:
        if isinstance(allowed_origins, str | bytes):
            raise TypeError(f"allowed_origins must be a list of patterns, got {allowed_origins!r}; put it into a list")
        for pattern in allowed_origins:
            _check_pattern(pattern)
        self.application: Any = as_application(application)
        self.allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application, or refuse the connection.

        Raises:
            ValueError: The scope is not that of a WebSocket.
        """
        if scope["type"] != "websocket":
            raise ValueError("You cannot use OriginValidator on a non-WebSocket connection")
        origin = None
        for name, value in scope.get("headers", []):
            if name == b"origin":
                origin = _parsed(value.decode("latin1"))
        if self.valid_origin(origin):
            return await self.application(scope, receive, send)
        _logger.warning(
            "a WebSocket to %r is refused: its Origin %s is not allowed by %r",
            scope.get("path"),
            "is missing or cannot be parsed, which" if origin is None else repr(origin.geturl()[:_LONGEST]),
            list(self.allowed_origins),
        )
        return await WebsocketDenier()(scope, receive, send)

    def valid_origin(self, parsed_origin: ParseResult | None) -> bool:
        """Tell whether an Origin is allowed; None stands for one that is missing or cannot be parsed."""
        if parsed_origin is None and "*" not in self.allowed_origins:
            return False
        return self.validate_origin(parsed_origin)

    def validate_origin(self, parsed_origin: ParseResult | None) -> bool:
        """Tell whether any of the patterns allows an Origin."""
        return any(
            pattern == "*" or self.match_allowed_origin(parsed_origin, pattern) for pattern in self.allowed_origins
        )

    def match_allowed_origin(self, parsed_origin: ParseResult | None, pattern: str) -> bool:
        """Tell whether one pattern, other than ``"*"``, allows an Origin."""
        if parsed_origin is None or parsed_origin.hostname is None:
            return False
        allowed = _parsed_pattern(pattern)
        if not _is_same_domain(parsed_origin.hostname, allowed.hostname):
            return False
        if allowed.scheme:
            same_port = self.get_origin_port(parsed_origin) == self.get_origin_port(allowed)
            return allowed.scheme == parsed_origin.scheme and same_port
        return allowed.port is None or allowed.port == self.get_origin_port(parsed_origin)

    def get_origin_port(self, origin: ParseResult) -> int | None:
        """Return the port of an Origin or a pattern, else the default one of its scheme, else None."""
        return origin.port if origin.port is not None else _DEFAULT_PORTS.get(origin.scheme)


def _parsed(origin: str) -> ParseResult | None:
    try:
        parsed = urlparse(origin)
        # Reading it is what checks it.
        _ = parsed.port
    except ValueError:
        return None
    return parsed


def _parsed_pattern(pattern: str) -> ParseResult:
    pattern = pattern.lower()
    if "://" in pattern:
        return urlparse(pattern)
    is_bare_ipv6 = pattern.count(":") > 1 and "[" not in pattern
    return urlparse(f"//[{pattern}]" if is_bare_ipv6 else f"//{pattern}")


def _check_pattern(pattern: str) -> None:
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern of allowed_origins must be a str, got {pattern!r}")
    try:
        _ = _parsed_pattern(pattern).port
        if pattern != "*" and "*" in pattern:
            _logger.warning(
                "%r in allowed_origins allows nothing: '*' stands alone, and '.example.com' is a host and all below it",
                pattern,
            )
    except ValueError as error:
        raise ValueError(f"{pattern!r} in allowed_origins is not [scheme://]host[:port]: {error}") from error


def _is_same_domain(host: str, pattern: str | None) -> bool:
    if not pattern:
        return False
    return host == pattern or (pattern.startswith(".") and (host.endswith(pattern) or host == pattern[1:]))


def AllowedHostsOriginValidator(application: Callable[..., Any]) -> OriginValidator:
    """Return an ``OriginValidator`` that allows what Django's ``ALLOWED_HOSTS`` does, as it is now.

    If it is empty and ``DEBUG`` is on, the machine itself is allowed.

    Raises:
        ImproperlyConfigured: Django is not in use.
    """
    settings = django_settings()
    if settings is None:
        raise configuration_error(
            "AllowedHostsOriginValidator reads Django's ALLOWED_HOSTS, and Django is not in use; "
            "say which origins are allowed with OriginValidator(application, [...])"
        )
    return OriginValidator(application, settings.ALLOWED_HOSTS or (_DEBUG_HOSTS if settings.DEBUG else []))


class WebsocketDenier(AsyncWebsocketConsumer):
    """Refuses every connection at the handshake."""

    async def connect(self) -> None:
        """Refuse the connection."""
        await self.close()
