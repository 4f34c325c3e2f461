"""The end of a user's WebSockets when the user signs out or has another password: the setting ``HEADRACE_SIGN_OUT``.

Closed are the connections in the group ``group_name("user", pk)``, and the sockets that are subscribed to the topic
``user.<pk>``. It is done when the transaction is, so that a client that connects again finds the session gone.
"""

import logging
from functools import partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieSession
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models.signals import post_save

from headrace._layers.group_names import group_name
from headrace._websocket.codes import NOT_LOGGED_IN
from headrace.exceptions import HeadraceError
from headrace.layers import get_channel_layer
from headrace.sockets import Broadcaster

__all__ = ["SETTING", "watch_users"]

SETTING = "HEADRACE_SIGN_OUT"
"""Whether a sign-out and a changed password end a user's WebSockets."""

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
    post_save.connect(_saved, sender=settings.AUTH_USER_MODEL, dispatch_uid="headrace")


def _signed_out(sender: Any, user: Any, request: Any = None, **_more: Any) -> None:
    if user is None:  # nobody was signed in
        return
    # Django tells of the sign-out first, and deletes the session then: a client that came again in between would be in.
    session = getattr(request, "session", None)
    if isinstance(session, SessionBase) and not isinstance(session, CookieSession):  # a cookie is with the client alone
        session.delete(session.session_key)
    _close(user, "signed out", None)


def _saved(sender: Any, instance: Any, created: bool, using: str, **_more: Any) -> None:
    # What set_password() has left there until the user was saved; an upgrade of the hash leaves nothing.
    if not created and getattr(instance, "_password", None) is not None:
        _close(instance, "the password was changed", using)


def _close(user: Any, reason: str, using: str | None) -> None:
    transaction.on_commit(partial(_close_now, str(user.pk), reason), using=using)


def _close_now(pk: str, reason: str) -> None:
    try:
        layer: Any = get_channel_layer()
        if hasattr(type(layer), "group_close_sync"):
            layer.group_close_sync(group_name("user", pk), NOT_LOGGED_IN, reason)
        elif layer is not None:
            _logger.error("%s: %s has no group_close(), so no consumer is closed", SETTING, type(layer).__name__)
            return
        Broadcaster().close_sockets(f"user.{pk}", NOT_LOGGED_IN, reason)
    except HeadraceError as error:
        # The sign-out itself is done, and must not fail for this.
        _logger.error("%s: the WebSockets of user %s were not closed (%s): %s", SETTING, pk, reason, error)
