"""The lifespan of an application: its layers are connected before it serves, and closed after it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from tests.support.servers import Server

import headrace
from headrace import (
    BaseChannelLayer,
    InMemoryChannelLayer,
    LayerClosed,
    LayerUnavailable,
    ProtocolTypeRouter,
    RedisChannelLayer,
)
from headrace._layers.registry import channel_layers


@pytest.fixture(autouse=True)
def _nothing_is_configured() -> Iterator[None]:
    before = channel_layers._configured, channel_layers._own
    yield
    channel_layers._configured, channel_layers._own = before


def over(url: str) -> dict[str, Any]:
    config = {"hosts": [url], "connect_timeout": 0.5, "send_timeout": 1}
    return {"BACKEND": "headrace.layers.RedisChannelLayer", "CONFIG": config}


async def talk(application: Any, *, until: str) -> list[dict[str, Any]]:
    """Speak the lifespan protocol with an application, and return what it sent until an answer of this type."""
    sent: list[dict[str, Any]] = []
    asked = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, Any]:
        return {"type": next(asked)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application({"type": "lifespan"}, receive, send)
    assert sent[-1]["type"] == until
    return sent


async def test_layers_in_memory_are_closed_and_made_anew() -> None:
    headrace.configure({"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}})
    async with headrace.lifespan():
        layer: Any = headrace.get_channel_layer()
        await layer.send("channel", {"type": "hello"})
    with pytest.raises(LayerClosed):
        await layer.send("channel", {"type": "hello"})
    assert headrace.get_channel_layer() is not layer


async def test_a_layer_that_was_given_as_an_object_can_be_used_again() -> None:
    layer = InMemoryChannelLayer()
    headrace.configure({"default": layer})
    for _ in range(2):
        async with headrace.lifespan():
            assert headrace.get_channel_layer() is layer
            await layer.send("channel", {"type": "hello"})


async def test_the_layer_of_a_test_is_not_closed(headrace_layer: InMemoryChannelLayer) -> None:
    for _ in range(2):
        async with headrace.lifespan():
            assert headrace.get_channel_layer() is headrace_layer
            await headrace_layer.send("channel", {"type": "hello"})


async def test_a_layer_that_can_neither_connect_nor_close_is_left_alone() -> None:
    layer: Any = BaseChannelLayer()
    headrace.configure({"default": layer})
    async with headrace.lifespan():
        assert headrace.get_channel_layer() is layer


async def test_a_framework_runs_it() -> None:
    headrace.configure({"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}})
    app = FastAPI(lifespan=headrace.lifespan)
    async with app.router.lifespan_context(app):
        layer: Any = headrace.get_channel_layer()
    assert headrace.get_channel_layer() is not layer


async def test_a_router_runs_it() -> None:
    headrace.configure({"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}})
    router = ProtocolTypeRouter({"lifespan": headrace.lifespan})
    sent = await talk(router, until="lifespan.shutdown.complete")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_another_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="answers scopes of type 'lifespan', got 'http'"):
        await headrace.lifespan({"type": "http"}, None, None)  # type: ignore[call-overload]


@pytest.mark.redis
async def test_a_layer_over_redis_is_connected_first_and_closed_at_the_end(redis_server: Server) -> None:
    headrace.configure({"default": over(redis_server.url), "other": over(redis_server.url)})
    async with headrace.lifespan():
        layers: list[Any] = [headrace.get_channel_layer(alias) for alias in ("default", "other")]
        assert [layer.stats().connection.state for layer in layers] == ["up"] * 2
    assert [layer.stats().connection.state for layer in layers] == ["closed"] * 2


@pytest.mark.redis
async def test_a_server_that_is_away_fails_the_start_and_closes_the_others(redis_server: Server) -> None:
    headrace.configure({"default": over(redis_server.url), "away": over("redis://127.0.0.1:1")})
    layer: Any = headrace.get_channel_layer()
    (failed,) = await talk(headrace.lifespan, until="lifespan.startup.failed")
    assert "LayerUnavailable: " in failed["message"]
    assert "127.0.0.1:1" in failed["message"]
    assert layer.stats().connection.state == "closed"
    with pytest.raises(LayerUnavailable):
        async with headrace.lifespan():
            raise AssertionError("it has started")


@pytest.mark.redis
async def test_a_failing_shutdown_is_told_to_the_server(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def close(self: RedisChannelLayer) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("it cannot close")

    monkeypatch.setattr(RedisChannelLayer, "close", close)
    headrace.configure({"default": over(redis_server.url)})
    sent = await talk(headrace.lifespan, until="lifespan.shutdown.failed")
    assert sent[-1]["message"] == "RuntimeError: it cannot close"
