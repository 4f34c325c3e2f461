"""GraphQL over Channels: queries by HTTP, subscriptions over both protocols, and messages of the layer."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import strawberry
from channels.layers import get_channel_layer
from channels.testing import HttpCommunicator, WebsocketCommunicator
from strawberry.channels import (
    GraphQLHTTPConsumer,
    GraphQLProtocolTypeRouter,
    GraphQLWSConsumer,
    SyncGraphQLHTTPConsumer,
)
from strawberry.channels.testing import GraphQLWebsocketCommunicator
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_WS_PROTOCOL

PROTOCOLS = [GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_WS_PROTOCOL]


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str) -> str:
        return f"hello {name}"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    @strawberry.subscription
    async def for_ever(self) -> AsyncGenerator[int, None]:
        yield 0
        await asyncio.Event().wait()

    @strawberry.subscription
    async def news(self, info: strawberry.Info[Any, Any]) -> AsyncGenerator[str, None]:
        async with info.context["ws"].listen_to_channel("news.item", groups=["news"]) as messages:
            yield "listening"
            async for message in messages:
                yield message["text"]


schema = strawberry.Schema(Query, subscription=Subscription)
websocket = GraphQLWSConsumer.as_asgi(schema=schema)


@asynccontextmanager
async def talking(application: Any = websocket) -> AsyncIterator[Any]:
    client = WebsocketCommunicator(application, "/graphql", subprotocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL])
    assert await client.connect() == (True, GRAPHQL_TRANSPORT_WS_PROTOCOL)
    await client.send_json_to({"type": "connection_init"})
    assert await client.receive_json_from() == {"type": "connection_ack"}
    yield client
    await client.disconnect()


def subscribe(number: int, query: str) -> dict[str, Any]:
    return {"id": str(number), "type": "subscribe", "payload": {"query": f"subscription {{ {query} }}"}}


def upcoming(number: int, **data: Any) -> dict[str, Any]:
    return {"id": str(number), "type": "next", "payload": {"data": data}}


def complete(number: int) -> dict[str, Any]:
    return {"id": str(number), "type": "complete"}


async def ask(application: Any) -> tuple[int, Any]:
    body = json.dumps({"query": '{ hello(name: "you") }'}).encode()
    headers = [(b"content-type", b"application/json")]
    response = await HttpCommunicator(application, "POST", "/graphql", body=body, headers=headers).get_response(30)
    return response["status"], json.loads(response["body"])


async def test_a_query_is_answered() -> None:
    assert await ask(GraphQLHTTPConsumer.as_asgi(schema=schema)) == (200, {"data": {"hello": "hello you"}})


@pytest.mark.django_db
async def test_a_query_is_answered_in_a_thread() -> None:
    assert await ask(SyncGraphQLHTTPConsumer.as_asgi(schema=schema)) == (200, {"data": {"hello": "hello you"}})


async def test_the_router_leads_to_both() -> None:
    router = GraphQLProtocolTypeRouter(schema)
    assert await ask(router) == (200, {"data": {"hello": "hello you"}})
    async with talking(router) as client:
        await client.send_json_to(subscribe(1, "count(to: 1)"))
        assert await client.receive_json_from() == upcoming(1, count=0)
        assert await client.receive_json_from() == complete(1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_subscription_yields_all_and_ends(protocol: str) -> None:
    async with GraphQLWebsocketCommunicator(websocket, "/graphql", protocol=protocol, subprotocols=[]) as client:
        await client.send_json_to(
            {**subscribe(1, "count(to: 3)"), "type": "start" if protocol == GRAPHQL_WS_PROTOCOL else "subscribe"}
        )
        kinds = [(await client.receive_json_from())["type"] for _ in range(4)]
    assert kinds == [*(["data" if protocol == GRAPHQL_WS_PROTOCOL else "next"] * 3), "complete"]


async def test_many_subscriptions_at_once() -> None:
    async with talking() as client:
        for number in range(20):
            await client.send_json_to(subscribe(number, "count(to: 2)"))
        got = [await client.receive_json_from() for _ in range(60)]
    for number in range(20):
        own = [message for message in got if message["id"] == str(number)]
        assert own == [upcoming(number, count=0), upcoming(number, count=1), complete(number)]


async def test_a_subscription_that_is_completed_at_once_leaves_the_connection() -> None:
    async with talking() as client:
        await client.send_json_to(subscribe(1, "forEver"))
        await client.send_json_to(complete(1))
        await client.send_json_to(subscribe(2, "count(to: 1)"))
        got = [await client.receive_json_from() for _ in range(2)]
        while got[-1] != complete(2):
            got.append(await client.receive_json_from())
    assert [message for message in got if message["id"] == "2"] == [upcoming(2, count=0), complete(2)]


async def test_a_second_subscription_of_the_same_id_closes_with_4409() -> None:
    async with talking() as client:
        await client.send_json_to(subscribe(1, "forEver"))
        assert await client.receive_json_from() == upcoming(1, forEver=0)
        await client.send_json_to(subscribe(1, "forEver"))
        closed = await client.receive_output()
        assert (closed["type"], closed["code"]) == ("websocket.close", 4409)


async def test_a_subscription_listens_to_the_layer() -> None:
    async with talking() as client:
        await client.send_json_to(subscribe(1, "news"))
        assert await client.receive_json_from() == upcoming(1, news="listening")
        for text in ("one", "two"):
            await get_channel_layer().group_send("news", {"type": "news.item", "text": text})
            assert await client.receive_json_from() == upcoming(1, news=text)
        await client.send_json_to(complete(1))


async def test_a_client_that_leaves_ends_its_subscriptions() -> None:
    async with talking() as client:
        await client.send_json_to(subscribe(1, "news"))
        await client.receive_json_from()
    await get_channel_layer().group_send("news", {"type": "news.item", "text": "nobody"})


async def test_without_a_common_protocol_it_is_closed_with_4406() -> None:
    client = WebsocketCommunicator(websocket, "/graphql", subprotocols=["other"])
    await client.connect()
    assert (await client.receive_output())["code"] == 4406
