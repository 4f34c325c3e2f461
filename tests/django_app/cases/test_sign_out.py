"""``HEADRACE_SIGN_OUT``: the end of a user's WebSockets when the user signs out or has another password."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models.signals import post_save
from django.test import RequestFactory, override_settings

from headrace import InMemoryChannelLayer, RedisChannelLayer
from headrace._layers.registry import channel_layers
from headrace.django import _sign_out
from headrace.exceptions import ChannelEmpty


class Connection:
    """A channel in the groups of a user, as a consumer's and a socket's are."""

    def __init__(self, layer: InMemoryChannelLayer, user: Any) -> None:
        self._layer = layer
        self._channels = [layer.new_channel_sync() for _ in range(2)]
        layer.group_add_sync(f"user.{user.pk}", self._channels[0])
        layer.group_add_sync(f"socket.t.user.{user.pk}", self._channels[1])

    def told(self) -> list[Any]:
        """Take what both were sent: the codes and reasons."""
        found = []
        for channel in self._channels:
            try:
                message = self._layer.receive_nowait(channel)
            except ChannelEmpty:
                continue
            found.append((message["type"], message["code"], message["reason"]))
        return found


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    before = channel_layers.set("default", layer := InMemoryChannelLayer())
    yield layer
    channel_layers.set("default", before)  # type: ignore[arg-type]  # what was there


@pytest.fixture
def watched() -> Iterator[None]:
    """Watch the users as a project with the setting does."""
    with override_settings(HEADRACE_SIGN_OUT=True):
        _sign_out.watch_users()
    yield
    user_logged_out.disconnect(dispatch_uid="headrace")
    post_save.disconnect(sender=User, dispatch_uid="headrace")


@pytest.fixture
def user() -> Iterator[Any]:
    user = User.objects.create_user("grace", password="first")
    yield user
    User.objects.filter(pk=user.pk).delete()


def sign_out(user: Any) -> None:
    request: Any = RequestFactory().get("/")
    request.user = user

    class Session(dict[str, Any]):
        def flush(self) -> None:
            self.clear()

    request.session = Session()
    logout(request)


@pytest.mark.usefixtures("watched")
def test_a_sign_out_closes_the_connections_of_the_user(layer: InMemoryChannelLayer, user: Any) -> None:
    connection = Connection(layer, user)
    sign_out(user)
    assert connection.told() == [("headrace.close", 4401, "signed out")] * 2


@pytest.mark.usefixtures("watched")
def test_a_changed_password_closes_them_when_it_is_committed(layer: InMemoryChannelLayer, user: Any) -> None:
    connection = Connection(layer, user)
    with transaction.atomic():
        user.set_password("second")
        user.save()
        assert connection.told() == []
    assert connection.told() == [("headrace.close", 4401, "the password was changed")] * 2


@pytest.mark.usefixtures("watched")
def test_one_that_is_rolled_back_closes_nothing(layer: InMemoryChannelLayer, user: Any) -> None:
    connection = Connection(layer, user)
    with pytest.raises(RuntimeError), transaction.atomic():
        user.set_password("second")
        user.save()
        raise RuntimeError("no")
    assert connection.told() == []


@pytest.mark.usefixtures("watched")
def test_another_change_and_nobody_s_sign_out_close_nothing(layer: InMemoryChannelLayer, user: Any) -> None:
    found = User.objects.get(pk=user.pk)
    connection = Connection(layer, found)
    found.email = "grace@example.org"
    found.save()
    assert found.check_password("first")
    user_logged_out.send(sender=None, request=None, user=None)
    assert connection.told() == []


def test_without_the_setting_nothing_is_closed(layer: InMemoryChannelLayer, user: Any) -> None:
    _sign_out.watch_users()
    connection = Connection(layer, user)
    sign_out(user)
    user.set_password("second")
    user.save()
    assert connection.told() == []


@pytest.mark.usefixtures("watched")
def test_a_layer_that_is_away_does_not_stop_a_sign_out(user: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "headrace.django")
    away = RedisChannelLayer(hosts=["redis://127.0.0.1:1"], connect_timeout=0.1, send_timeout=0.2)
    before = channel_layers.set("default", away)
    away.close_sync()
    try:
        sign_out(user)
    finally:
        channel_layers.set("default", before)  # type: ignore[arg-type]  # what was there
    (told,) = [record.getMessage() for record in caplog.records if record.name == "headrace.django"]
    assert told.startswith(f"HEADRACE_SIGN_OUT: the WebSockets of user {user.pk} were not closed (signed out): ")


@pytest.mark.usefixtures("watched")
def test_another_layer_is_named_in_the_log(user: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Foreign:
        pass

    foreign: Any = Foreign()
    before = channel_layers.set("default", foreign)
    try:
        sign_out(user)
    finally:
        channel_layers.set("default", before)  # type: ignore[arg-type]  # what was there
    assert "HEADRACE_SIGN_OUT: Foreign has no group_close(), so no consumer is closed" in caplog.messages


def test_what_is_no_bool_is_refused() -> None:
    with (
        override_settings(HEADRACE_SIGN_OUT="yes"),
        pytest.raises(ImproperlyConfigured, match="HEADRACE_SIGN_OUT must be True or False, got 'yes'"),
    ):
        _sign_out.watch_users()


def test_a_project_without_users_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    with (
        override_settings(HEADRACE_SIGN_OUT=True),
        pytest.raises(ImproperlyConfigured, match=r"needs 'django\.contrib\.auth' in INSTALLED_APPS"),
    ):
        _sign_out.watch_users()
