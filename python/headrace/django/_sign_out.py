"""The end of a user's WebSockets when the user signs out, has another password, or may not sign in any more.

It is done if the setting ``HEADRACE_SIGN_OUT`` says so.

Closed are the connections in the group ``group_name("user", pk)``, and the sockets that are subscribed to the topic
``user.<pk>``. It is done when the transaction is, so that a client that connects again finds the session gone.
"""

import logging
from functools import partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieSession
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models.signals import post_delete, post_save

from headrace._layers.group_names import group_name
from headrace._websocket.codes import NOT_LOGGED_IN
from headrace.django._user import key_of
from headrace.exceptions import InvalidChannelLayerError
from headrace.layers import channel_layers, get_channel_layer
from headrace.sockets import Broadcaster

__all__ = ["SETTING", "watch_users"]

SETTING = "HEADRACE_SIGN_OUT"
"""Whether a sign-out, a changed password and the end of an account end a user's WebSockets."""

_logger = logging.getLogger("headrace.django")


def watch_users() -> None:
    """Close a user's WebSockets from now on, if the setting says so.

    Raises:
        ImproperlyConfigured: The setting is no bool, or the project has no users.
    """
    wanted = getattr(settings, SETTING, False)
    if not isinstance(wanted, bool):
        raise ImproperlyConfigured(f"{SETTING} must be True or False, got {wanted!r}")
    if not wanted:
        return
    if not apps.is_installed("django.contrib.auth"):
        raise ImproperlyConfigured(f"{SETTING} needs 'django.contrib.auth' in INSTALLED_APPS, which has the users")
    user_logged_out.connect(_signed_out, dispatch_uid="headrace")
    # Not of one sender: proxies and children of the model save users too.
    post_save.connect(_saved, dispatch_uid="headrace")
    for model in apps.get_models():
        # Of these alone: where somebody waits for it, Django reads each row of a model before it deletes it.
        if issubclass(model, get_user_model()):
            post_delete.connect(_deleted, sender=model, dispatch_uid="headrace")


def _signed_out(sender: Any, user: Any, request: Any = None, **_more: Any) -> None:
    if user is None:  # nobody was signed in
        return
    # Django tells of the sign-out first, and deletes the session then: a client that came again in between would be in.
    session = getattr(request, "session", None)
    if isinstance(session, SessionBase) and not isinstance(session, CookieSession):  # a cookie is with the client alone
        session.delete(session.session_key)
    _close(user, "signed out", None)


def _saved(sender: Any, instance: Any, created: bool, using: str, **_more: Any) -> None:
    if created or not isinstance(instance, get_user_model()):
        return
    # What set_password() has left there until the user was saved; an upgrade of the hash leaves nothing.
    if getattr(instance, "_password", None) is not None:
        _close(instance, "the password was changed", using)
    elif not instance.is_active:
        _close(instance, "the account is not active", using)


def _deleted(sender: Any, instance: Any, using: str, **_more: Any) -> None:
    _close(instance, "the account was deleted", using)


def _close(user: Any, reason: str, using: str | None) -> None:
    transaction.on_commit(partial(_close_now, key_of(user), reason), using=using)


def _close_now(pk: str, reason: str) -> None:
    closes = [
        partial(_close_consumers, alias, pk, reason) for alias in {**channel_layers.configs, **channel_layers.backends}
    ]
    for close in (*closes, partial(_close_sockets, pk, reason)):
        try:
            close()
        except Exception as error:
            # The sign-out itself is done, and must not fail for this; and what else can be closed is closed.
            _logger.error("%s: WebSockets of user %s were not closed (%s): %s", SETTING, pk, reason, error)


def _close_consumers(alias: str, pk: str, reason: str) -> None:
    layer: Any = get_channel_layer(alias)
    if not hasattr(type(layer), "group_close_sync"):
        name = type(layer).__name__
        _logger.error("%s: %s, the layer %r, has no group_close(): its consumers are not closed", SETTING, name, alias)
        return
    layer.group_close_sync(group_name("user", pk), NOT_LOGGED_IN, reason)


def _close_sockets(pk: str, reason: str) -> None:
    try:
        broadcaster = Broadcaster()
    except InvalidChannelLayerError:
        return  # the layer is another's, and no socket can be there
    broadcaster.close_sockets(f"user.{pk}", NOT_LOGGED_IN, reason)
