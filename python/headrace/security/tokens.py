"""Who a WebSocket is, by a token that its client presents.

A page logs in with cookies, and ``channels.auth.AuthMiddlewareStack`` knows its user. A program, an app on a phone or a
page of another site has a token instead, and the handshake of a WebSocket is the only place for it::

    class ByToken(TokenAuthMiddleware):
        async def get_user(self, token):
            return await User.objects.filter(api_key=token, is_active=True).afirst()


    class Counter(BaseSocketServer):
        def authorize(self):
            return self.scope["user"].is_authenticated


    application = ByToken(URLRouter([path("ws/", Counter.as_asgi())]))

The middleware says who it is, and refuses nobody; who may come in is said by the ``authorize()`` of a socket server, or
by the ``connect()`` of a consumer. Where both cookies and tokens count, ``AuthMiddlewareStack`` stands outside of it.

A token in a URL is written into the access logs of servers and proxies. One in a subprotocol or in a header usually is
not: prefer these where the client is ours.
"""

import logging
import re
import traceback
from collections.abc import Callable, Collection, Iterable
from importlib import import_module
from inspect import isawaitable, iscoroutinefunction
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, quote_plus

from headrace._dispatch import call_in_thread, uses_pool
from headrace._paths import configuration_error
from headrace._settings import django_settings, installed
from headrace.db import aclose_old_connections
from headrace.middleware import BaseMiddleware
from headrace.typing import Message, Receive, Scope, Send

__all__ = ["DRFTokenAuthMiddleware", "TokenAuthMiddleware"]

_logger = logging.getLogger("headrace.sockets")

# Those of django_sockets 3.1, and the one of 1.0.
_ARGUMENTS = ("token", "auth_token", "user_token")
_SUBPROTOCOL = "Token."

_SHORTEST = 8
"""Characters of a token that can be told from the text around it."""

# NUL, and what is left of bytes that are no UTF-8. Databases refuse them with an error, so that anybody could make a
# wrong token look like an outage.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class TokenAuthMiddleware(BaseMiddleware):
    """Puts the owner of the client's token into ``scope["user"]``. Override ``get_user``; see the module.

    A token is looked for in the query, as ``?token=``, ``?auth_token=`` or ``?user_token=`` in this order, and then
    among the subprotocols that the client offers, as ``Token.<key>``, and then in the header ``Authorization``, as
    ``Bearer <key>`` or ``Token <key>``, which programs can send and browsers cannot. The first of a kind counts, and an
    empty argument is none. The query is decoded as that of a form, so a plus is a space there. A subprotocol is taken
    as it is; it can be made of letters, digits and ``!#$%&'*+-.^_`|~``. ``header_schemes`` says which schemes of the
    header are read.

    Where the client offers such a subprotocol and the application accepts without choosing one, the accept names it: a
    browser closes a connection that answers none of its offers.

    The user is anonymous if nobody owns the token, even if a middleware outside has found a user: who presents a token
    wants to be its owner, and is not to go on unnoticed as somebody else when it is revoked. Without a token the user
    that is there stays, and is anonymous if there is none. Anonymous is Django's ``AnonymousUser`` where
    ``django.contrib.auth`` is in use, else an object with the same answers.

    If ``get_user`` raises, nobody is let in, not even as anonymous: the client would take its token for a wrong one and
    throw it away. The error is logged with its traceback, and the application fails: most servers answer the handshake
    with 500, where a refusal is 401 or 403.

    The token is not logged here, and is taken out of the errors of ``get_user``.

    Only WebSockets are looked at: ``?token=`` in the URL of a page is often something else.

    Args:
        inner: An ASGI application or a consumer class.

    Raises:
        TypeError: ``get_user`` is not overridden, or ``header_schemes`` is a single text.
    """

    header_schemes: ClassVar[Collection[str]] = ("Bearer", "Token")
    """The schemes of the header ``Authorization`` that are read, in any case; an empty tuple for none.

    Set it to ``()`` where a proxy adds a token of its own to the header, as oauth2-proxy and service meshes do: as it
    is nobody's here, it would make a user anonymous whom a cookie has named.
    """

    def __init__(self, inner: Callable[..., Any]) -> None:
        super().__init__(inner)
        if isinstance(self.header_schemes, str | bytes):
            raise TypeError(
                f"{type(self).__name__}.header_schemes must be a tuple of schemes, got {self.header_schemes!r}; put it "
                "into one"
            )
        if type(self).get_user is TokenAuthMiddleware.get_user:
            raise TypeError(
                f"{type(self).__name__} cannot know who owns a token; use a subclass that overrides get_user(token)"
            )

    def get_user(self, token: str) -> Any:
        """Return the owner of a token, or None if it is nobody's: to be overridden, as ``def`` or ``async def``.

        A plain one runs in a thread, where it may use Django's ORM: that of thread-sensitive code if Django is in use,
        else one of a pool. Old connections of Django's are closed before and after either kind.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application with the user in its scope.

        Raises:
            RuntimeError: ``get_user`` failed; the log says how.
        """
        if scope.get("type", "websocket") != "websocket":
            return await super().__call__(scope, receive, send)
        offered = _offered(scope.get("subprotocols", ()))
        token = (
            _argument(scope.get("query_string", b""))
            or (offered or "").removeprefix(_SUBPROTOCOL)
            or _authorized(scope.get("headers") or (), self.header_schemes)
        )
        if token:
            scope = {**scope, "user": await self._owner(token)}
        elif scope.get("user") is None:
            scope = {**scope, "user": _anonymous()}
        return await super().__call__(scope, receive, send if offered is None else _choosing(offered, send))

    async def _owner(self, token: str) -> Any:
        if _NO_TEXT.search(token):
            return _anonymous()
        try:
            user = await self._found(token)
        except Exception as error:
            report = _report_without(token, error)
        else:
            return _anonymous() if user is None else user
        # Outside of the except, and with the traceback as text: whoever logs or reports an exception also shows the
        # one that it came from, and some the variables of its frames, where the token is.
        name = type(self).__name__
        _logger.error("%s.get_user failed, so a connection is refused\n%s", name, report)
        raise RuntimeError(f"{name}.get_user failed; the log of {_logger.name} says how")

    async def _found(self, token: str) -> Any:
        await aclose_old_connections()
        try:
            if iscoroutinefunction(self.get_user):
                return await self.get_user(token)
            found = await call_in_thread(uses_pool(None), self.get_user, token)
            # A coroutine that a plain function made would pass for a user.
            return await found if isawaitable(found) else found
        finally:
            await aclose_old_connections()


class DRFTokenAuthMiddleware(TokenAuthMiddleware):
    """Takes the tokens of Django REST framework: those of ``rest_framework.authtoken``.

    An inactive user is anonymous. A connection with a token costs one query.

    Needs the extra ``headrace[drf]``.

    Args:
        inner: An ASGI application or a consumer class.
        select_related: More relations of a token to read with the same query, such as ``"user__profile"``; ``"user"``
            is always read.

    Raises:
        ImproperlyConfigured: Django is not in use, Django REST framework is not installed, or its tokens are not in
            ``INSTALLED_APPS``.
        TypeError: ``select_related`` is a single text.
    """

    def __init__(self, inner: Callable[..., Any], select_related: Iterable[str] | None = None) -> None:
        super().__init__(inner)
        if isinstance(select_related, str | bytes):
            raise TypeError(f"select_related must be a list of relations, got {select_related!r}; put it into a list")
        self.select_related: list[str] = list(dict.fromkeys(["user", *(select_related or ())]))
        _check_drf()

    def get_user(self, token: str) -> Any:
        """Return the owner of a token, if there is one who is active."""
        tokens = import_module("rest_framework.authtoken.models").Token.objects
        found = tokens.select_related(*self.select_related).filter(key=token).first()
        return found.user if found is not None and found.user.is_active else None


def _argument(query: bytes) -> str:
    """Return the token in a query, or an empty text."""
    pairs = parse_qsl(query.decode("utf-8", "surrogateescape"), errors="surrogateescape")
    # The first of a name is what remains.
    values = dict(reversed(pairs))
    return next((values[name] for name in _ARGUMENTS if name in values), "")


def _offered(subprotocols: Iterable[str]) -> str | None:
    return next((each for each in subprotocols if each.startswith(_SUBPROTOCOL)), None)


def _authorized(headers: Iterable[tuple[bytes, bytes]], schemes: Collection[str]) -> str:
    """Return the token in the header for it, or an empty text."""
    value = next((value for name, value in headers if name.lower() == b"authorization"), b"")
    scheme, _, key = value.decode("utf-8", "surrogateescape").strip().partition(" ")
    return key.strip() if scheme.lower() in map(str.lower, schemes) else ""


def _choosing(subprotocol: str, send: Send) -> Send:
    """Add a subprotocol to the accept, unless the application has chosen one."""

    async def choose(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": subprotocol}
        await send(message)

    return choose


def _report_without(token: str, error: Exception) -> str:
    """Return the traceback without the token; of a short token, which may be part of any word, the error's name."""
    if len(token) < _SHORTEST:
        return type(error).__name__
    return _without(token, "".join(traceback.format_exception(error)))


def _without(token: str, text: str) -> str:
    """Take a token out of a text, in whichever of the usual spellings it stands there."""
    spellings = (token, repr(token)[1:-1], ascii(token)[1:-1], quote(token, safe=""), quote_plus(token))
    return re.sub("|".join(map(re.escape, spellings)), "[token]", text)


class _Anonymous:
    """Nobody, where Django's ``AnonymousUser`` is not to be had."""

    __slots__ = ()

    id = pk = None
    username = ""
    is_authenticated = is_active = is_staff = is_superuser = False
    is_anonymous = True

    def __repr__(self) -> str:
        return "AnonymousUser"


_NOBODY = _Anonymous()


def _anonymous() -> Any:
    if django_settings() is not None:
        apps = import_module("django.apps").apps
        if apps.models_ready and apps.is_installed("django.contrib.auth"):
            return import_module("django.contrib.auth.models").AnonymousUser()
    return _NOBODY


def _check_drf() -> None:
    if not installed("rest_framework"):
        raise configuration_error(
            "DRFTokenAuthMiddleware needs Django REST framework, which is not installed: pip install 'headrace[drf]'"
        )
    settings = django_settings()
    if settings is None:
        raise configuration_error("DRFTokenAuthMiddleware reads tokens of Django REST framework; Django is not in use")
    if "rest_framework.authtoken" not in settings.INSTALLED_APPS:
        raise configuration_error(
            "DRFTokenAuthMiddleware reads the tokens of 'rest_framework.authtoken', which is not in INSTALLED_APPS"
        )
