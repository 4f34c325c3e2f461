"""Middleware runs its application with a scope of its own."""

from typing import Any

import pytest

from headrace.consumer import AsyncConsumer
from headrace.middleware import BaseMiddleware

NOBODY: Any = None


class Adds(BaseMiddleware):
    """Puts something into the scope, as a project's middleware does."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await super().__call__({**scope, "added": True}, receive, send)


async def test_what_an_application_puts_into_the_scope_stays_inside() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["inside"] = True

    scope = {"type": "websocket"}
    await BaseMiddleware(app)(scope, NOBODY, NOBODY)
    assert scope == {"type": "websocket"}


async def test_what_lies_in_the_scope_is_shared() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].append(1)

    session: list[int] = []
    await BaseMiddleware(app)({"session": session}, NOBODY, NOBODY)
    assert session == [1]


async def test_a_subclass_gives_its_application_what_it_adds() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> Any:
        return scope["added"], receive, send

    given = object(), object()
    assert await Adds(Adds(app))({}, *given) == (True, *given)


async def test_what_the_application_raises_goes_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await BaseMiddleware(app)({}, NOBODY, NOBODY)


def test_the_inner_application_is_the_one_given() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    assert BaseMiddleware(app).inner is app


def test_a_consumer_class_becomes_its_application() -> None:
    assert BaseMiddleware(AsyncConsumer).inner.consumer_class is AsyncConsumer
