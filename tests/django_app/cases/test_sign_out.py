"""``HEADRACE_SIGN_OUT``: the end of a user's WebSockets when the user signs out or has another password."""

import logging
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user, login, logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models, transaction
from django.db.models.signals import post_delete, post_save
from django.test import RequestFactory, override_settings

from headrace import InMemoryChannelLayer, RedisChannelLayer
from headrace._layers.registry import channel_layers
from headrace.django import _sign_out
from headrace.exceptions import ChannelEmpty
from headrace.sockets import Broadcaster


class Connection:
    """A channel in the groups of a user, as a consumer's and a socket's are."""

    def __init__(self, layer: InMemoryChannelLayer, user: Any) -> None:
        self._layer, self.pk = layer, user.pk
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
    post_save.disconnect(dispatch_uid="headrace")
    post_delete.disconnect(sender=User, dispatch_uid="headrace")


@pytest.fixture
def user() -> Iterator[Any]:
    user = User.objects.create_user("grace", password="first")
    yield user
    User.objects.filter(pk=user.pk).delete()


BACKENDS = ("db", "cached_db", "cache", "file")


def signed_in(user: Any, backend: str = "db") -> Any:
    """Return a request of the user, whose session is stored."""
    request: Any = RequestFactory().get("/")
    request.session = import_module(f"django.contrib.sessions.backends.{backend}").SessionStore()
    request.user = user
    login(request, user)
    request.session.save()
    return request


def who(request: Any, key: str) -> Any:
    """Tell who comes with the key of a session now."""
    other: Any = RequestFactory().get("/")
    other.session = type(request.session)(key)
    return get_user(other)


def sign_out(user: Any) -> None:
    logout(signed_in(user))


@pytest.mark.usefixtures("watched")
def test_a_sign_out_closes_the_connections_of_the_user(layer: InMemoryChannelLayer, user: Any) -> None:
    connected = Connection(layer, user)
    sign_out(user)
    assert connected.told() == [("headrace.close", 4401, "signed out")] * 2


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_session_is_gone_when_they_are_told(
    layer: InMemoryChannelLayer, user: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = signed_in(user, backend)
    key = request.session.session_key
    assert who(request, key) == user
    found: list[Any] = []
    close = layer.group_close_sync

    def look_and_close(group: str, *arguments: Any) -> Any:
        found.append(who(request, key))
        return close(group, *arguments)

    monkeypatch.setattr(InMemoryChannelLayer, "group_close_sync", lambda self, *arguments: look_and_close(*arguments))
    connected = Connection(layer, user)
    logout(request)
    assert len(connected.told()) == 2
    assert found
    assert not any(each.is_authenticated for each in found)
    assert request.session.is_empty()


@pytest.mark.usefixtures("watched")
def test_a_session_that_is_a_cookie_is_left_to_the_sign_out(layer: InMemoryChannelLayer, user: Any) -> None:
    request = signed_in(user, "signed_cookies")
    seen: list[Any] = []
    user_logged_out.connect(note := lambda request, **_: seen.append(dict(request.session)))  # behind headrace's
    connected = Connection(layer, user)
    logout(request)
    user_logged_out.disconnect(note)
    assert len(connected.told()) == 2
    assert seen[0]["_auth_user_id"] == str(user.pk)
    assert request.session.is_empty()


@pytest.mark.usefixtures("watched")
def test_a_changed_password_closes_them_when_it_is_committed(layer: InMemoryChannelLayer, user: Any) -> None:
    connected = Connection(layer, user)
    with transaction.atomic():
        user.set_password("second")
        user.save()
        assert connected.told() == []
    assert connected.told() == [("headrace.close", 4401, "the password was changed")] * 2


@pytest.mark.usefixtures("watched")
def test_one_that_is_rolled_back_closes_nothing(layer: InMemoryChannelLayer, user: Any) -> None:
    connected = Connection(layer, user)
    with pytest.raises(RuntimeError), transaction.atomic():
        user.set_password("second")
        user.save()
        raise RuntimeError("no")
    assert connected.told() == []


@pytest.mark.usefixtures("watched")
def test_another_change_and_nobody_s_sign_out_close_nothing(layer: InMemoryChannelLayer, user: Any) -> None:
    found = User.objects.get(pk=user.pk)
    connected = Connection(layer, found)
    found.email = "grace@example.org"
    found.save()
    assert found.check_password("first")
    user_logged_out.send(sender=None, request=None, user=None)
    assert connected.told() == []


@pytest.fixture(scope="module")
def member() -> Iterator[Any]:
    """Give a child of the user model, with a table and a key of its own."""

    class Member(User):  # type: ignore[misc]  # Django has no types
        number = models.AutoField(primary_key=True)
        user = models.OneToOneField(User, models.CASCADE, parent_link=True)

        class Meta:
            app_label = "auth"

    with connection.schema_editor() as editor:
        editor.create_model(Member)
    yield Member
    with connection.schema_editor() as editor:
        editor.delete_model(Member)
    del apps.all_models["auth"]["member"]
    apps.clear_cache()


@pytest.mark.usefixtures("watched")
def test_a_proxy_of_the_model_and_a_child_of_it_are_users(
    layer: InMemoryChannelLayer, user: Any, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Staff(User):  # type: ignore[misc]  # Django has no types
        class Meta:
            app_label = "auth"
            proxy = True

    del apps.all_models["auth"]["staff"]
    apps.clear_cache()
    child = member(user=user, number=user.pk + 7)
    child.save_base(raw=True)
    for found in (Staff.objects.get(pk=user.pk), member.objects.get(pk=user.pk + 7)):
        connected = Connection(layer, user)
        found.set_password("second")
        found.save()
        assert connected.told() == [("headrace.close", 4401, "the password was changed")] * 2
    child.delete(keep_parents=True)


@pytest.mark.usefixtures("watched")
def test_a_user_who_is_not_active_any_more_or_is_deleted_is_out(layer: InMemoryChannelLayer, user: Any) -> None:
    connected = Connection(layer, user)
    user.is_active = False
    user.save()
    assert connected.told() == [("headrace.close", 4401, "the account is not active")] * 2
    user.delete()
    user.pk = user.id = connected.pk
    assert connected.told() == [("headrace.close", 4401, "the account was deleted")] * 2


@pytest.mark.usefixtures("watched")
def test_what_is_no_user_is_deleted_as_fast_as_ever() -> None:
    assert not post_delete.has_listeners(ContentType)


def test_without_the_setting_nothing_is_closed(layer: InMemoryChannelLayer, user: Any) -> None:
    _sign_out.watch_users()
    connected = Connection(layer, user)
    sign_out(user)
    user.set_password("second")
    user.save()
    assert connected.told() == []


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
    told = [record.getMessage() for record in caplog.records if record.name == "headrace.django"]
    assert len(told) == 2  # the consumers, and the sockets
    assert all(
        text.startswith(f"HEADRACE_SIGN_OUT: WebSockets of user {user.pk} were not closed (signed out): ")
        for text in told
    )


@pytest.mark.usefixtures("watched")
def test_another_layer_is_named_in_the_log_and_keeps_nothing_else_open(
    layer: InMemoryChannelLayer, user: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Foreign:
        pass

    connected = Connection(layer, user)
    monkeypatch.setitem(channel_layers.backends, "default", Foreign())
    told: list[Any] = []
    monkeypatch.setattr(Broadcaster, "close_sockets", lambda self, *arguments: told.append(arguments))
    monkeypatch.setitem(channel_layers.backends, "other", layer)
    with override_settings(DJANGO_SOCKETS_CONFIG={"hosts": ["redis://127.0.0.1:1"]}):
        sign_out(user)
    assert told == [(f"user.{user.pk}", 4401, "signed out")]
    assert connected.told() == [("headrace.close", 4401, "signed out")]
    sign_out(user)
    assert (
        caplog.messages
        == ["HEADRACE_SIGN_OUT: Foreign, the layer 'default', has no group_close(): its consumers are not closed"] * 2
    )
    assert len(told) == 1  # without hosts no socket can be there


@pytest.mark.usefixtures("watched")
def test_consumers_of_all_layers_are_closed(layer: InMemoryChannelLayer, user: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(channel_layers.backends, "other", other := InMemoryChannelLayer())
    here, there = Connection(layer, user), Connection(other, user)
    sign_out(user)
    assert here.told() == [("headrace.close", 4401, "signed out")] * 2
    assert there.told() == [("headrace.close", 4401, "signed out")]  # topics are in one layer


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
