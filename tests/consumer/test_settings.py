"""Settings of a class are checked when the class is defined."""

import math
from typing import Any

import pytest

from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

SETTINGS = (
    *("concurrency", "handler_timeout", "max_backlog", "max_backlog_bytes", "overflow", "idle_timeout"),
    "read_ahead_bytes",
    *("forward", "raise_after_close", "thread_sensitive", "grace_period"),
    *("rate_limit", "rate_limit_overflow"),
)


def define(base: type[Any] = AsyncWebsocketConsumer, **settings: Any) -> type[Any]:
    """Define a class with settings."""
    return type("Here", (base,), settings)


@pytest.mark.parametrize("setting", ["handler_timeout", "idle_timeout", "grace_period"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "3", True, [1], object()])
def test_seconds_must_be_positive_numbers(setting: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"Here\.{setting}"):
        define(**{setting: value})


@pytest.mark.parametrize("setting", ["handler_timeout", "idle_timeout", "grace_period"])
@pytest.mark.parametrize("value", [None, 0.5, 3, math.inf])
def test_seconds_may_be_any_positive_number_or_none(setting: str, value: Any) -> None:
    assert getattr(define(**{setting: value}), setting) == value


@pytest.mark.parametrize("setting", ["concurrency", "max_backlog", "max_backlog_bytes", "read_ahead_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, math.inf])
def test_counts_must_be_positive_whole_numbers(setting: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"Here\.{setting}"):
        define(**{setting: value})


@pytest.mark.parametrize("value", ["drop", "", 3, True, ["close"], "CLOSE"])
def test_overflow_must_be_one_of_four(value: Any) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=r"Here\.overflow must be one of 'drop_new', 'drop_old', 'coalesce'"
    ):
        define(overflow=value)


@pytest.mark.parametrize("value", ["chat.message", 3, {3}, {"a": 3}, [None], {None: "a"}, b"x", True])
def test_forward_must_be_types_or_a_mapping_of_them(value: Any) -> None:
    with pytest.raises(TypeError, match=r"Here\.forward must be a set of message types"):
        define(forward=value)


@pytest.mark.parametrize("value", [(), [], set(), {}, {"a"}, {"a": "b"}, iter(["a"])])
def test_forward_may_be_empty(value: Any) -> None:
    define(forward=value)


@pytest.mark.parametrize("base", [SyncConsumer, WebsocketConsumer])
def test_a_sync_consumer_cannot_have_what_a_thread_cannot_do(base: type[Any]) -> None:
    with pytest.raises(TypeError, match=r"Here\.concurrency must be 1"):
        define(base, concurrency=2)
    with pytest.raises(TypeError, match=r"Here\.handler_timeout must be None"):
        define(base, handler_timeout=1)
    define(base, concurrency=1, handler_timeout=None, idle_timeout=1, max_backlog=1, overflow="close")


@pytest.mark.parametrize(
    "base", [AsyncConsumer, SyncConsumer, AsyncWebsocketConsumer, WebsocketConsumer, AsyncHttpConsumer]
)
@pytest.mark.parametrize(
    "name",
    SETTINGS,
)
def test_a_method_of_the_name_of_a_setting_is_no_setting(base: type[Any], name: str) -> None:
    async def handler(self: Any, event: Any) -> None:
        pass

    def plain(self: Any, event: Any) -> None:
        pass

    for method in (handler, plain, staticmethod(plain), classmethod(plain)):
        define(base, **{name: method})


def test_a_subclass_is_checked_with_what_it_inherits() -> None:
    class Base(AsyncWebsocketConsumer):
        concurrency = 3

    with pytest.raises(ValueError, match=r"Here\.max_backlog"):
        define(Base, max_backlog=0)


def test_other_arguments_of_a_class_reach_its_bases() -> None:
    class Mixin:
        def __init_subclass__(cls, mark: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            cls.mark = mark

        mark: str

    class First(Mixin, AsyncWebsocketConsumer, mark="first"):
        pass

    class Last(AsyncWebsocketConsumer, Mixin, mark="last"):
        pass

    assert (First.mark, Last.mark) == ("first", "last")
