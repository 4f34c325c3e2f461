"""The group of a user: who joins it first and then looks the session up again misses no sign-out.

A middleware has read the session when the handshake began. A sign-out behind that, and before the group is joined,
deletes a session that nobody reads any more, and closes a group that the connection is not in yet.
"""

from typing import Any, Protocol

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.sessions.backends.base import SessionBase
from django.utils.crypto import constant_time_compare

from headrace._layers.group_names import group_name
from headrace.db import database_sync_to_async
from headrace.sockets import BaseSocketServer
from headrace.sync import async_to_sync
from headrace.typing import Scope

__all__ = ["join_user", "join_user_sync", "key_of"]


class _Consumer(Protocol):
    """A consumer: of headrace's, or of Channels'."""

    scope: Scope
    channel_layer: Any
    channel_name: str


async def join_user(connection: _Consumer | BaseSocketServer) -> Any:
    """Let a connection end with the session of its user, and tell who that is; for ``connect`` or ``authorize``.

    A consumer joins the group ``group_name("user", user.pk)``, a socket server subscribes to the topic
    ``f"user.{user.pk}"``: those that ``HEADRACE_SIGN_OUT`` closes. Then the session is looked up again, so that a
    sign-out is not missed, whenever it comes. Refuse the connection if this returns None.

    It needs ``AuthMiddlewareStack``, or any middleware that puts a user into the scope. A user that the session of the
    scope does not name, as one who came by a token, is not looked up again.

    Args:
        connection: The consumer or the socket server, before it is accepted.

    Returns:
        The user as the database has it now, or None if nobody is signed in.

    Raises:
        LayerUnavailable: The server of the layer could not be reached.
        ValueError: The scope has no user: there is no middleware for that.
    """
    if (user := _user_in(connection.scope)) is None:
        return None
    pk = key_of(user)
    if isinstance(connection, BaseSocketServer):
        await connection.async_subscribe(f"user.{pk}")
    else:
        await connection.channel_layer.group_add(group_name("user", pk), connection.channel_name)
    return await database_sync_to_async(_signed_in)(connection.scope, user)


def join_user_sync(connection: _Consumer | BaseSocketServer) -> Any:
    """Do what ``join_user`` does, in a sync consumer or in a plain hook of a socket server."""
    if (user := _user_in(connection.scope)) is None:
        return None
    pk = key_of(user)
    if isinstance(connection, BaseSocketServer):
        connection.subscribe(f"user.{pk}")
    else:
        async_to_sync(connection.channel_layer.group_add)(group_name("user", pk), connection.channel_name)
    return _signed_in(connection.scope, user)


def key_of(user: Any) -> str:
    """Return the key of a user that its group and its topic are called by."""
    model = get_user_model()
    # A child of the model may have a key of its own.
    return str(getattr(user, model._meta.pk.attname) if isinstance(user, model) else user.pk)


def _user_in(scope: Scope) -> Any:
    """Return the user whom a middleware has found, or None if that is nobody."""
    if "user" not in scope:
        raise ValueError(
            "the scope has no user: put AuthMiddlewareStack, or another that knows it, around the consumer"
        )
    user: Any = scope["user"]
    return user if user is not None and user.is_authenticated else None


def _signed_in(scope: Scope, user: Any) -> Any:
    """Look up again whom a session names; like Django's ``get_user``, but it changes no session."""
    session: Any = scope.get("session")
    key = key_of(user)
    if not isinstance(session, SessionBase) or session.get(SESSION_KEY) != key:
        return user
    stored = session.__class__(session.session_key)
    if stored.get(SESSION_KEY) != key:
        return None
    backend = load_backend(stored[BACKEND_SESSION_KEY])
    found = backend.get_user(get_user_model()._meta.pk.to_python(key))
    if found is None or not constant_time_compare(stored.get(HASH_SESSION_KEY, ""), found.get_session_auth_hash()):
        return None
    return found
