"""What the Python blocks of a page in docs/ need before them, and what has to be so after them."""

from dataclasses import dataclass

DJANGO = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["localhost"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}},
)
django.setup()
"""

USERS = """
from types import SimpleNamespace

from headrace.middleware import BaseMiddleware
from headrace.testing import ConnectionRejected, HttpCommunicator, WebsocketCommunicator, settle


class Knows(BaseMiddleware):
    def __init__(self, inner, name, id=7):
        super().__init__(inner)
        self.user = SimpleNamespace(username=name, id=id, pk=id, is_authenticated=name is not None)

    async def __call__(self, scope, receive, send):
        return await super().__call__({**scope, "user": self.user}, receive, send)


async def is_refused(application, path, **arguments):
    try:
        async with WebsocketCommunicator(application, path, **arguments):
            return False
    except ConnectionRejected:
        return True
"""

SECRETS = """
import os

os.environ.update(REDIS_PASSWORD="s3cr3t", SENTINEL_PASSWORD="s3cr3t", CHANNELS_KEY="s3cr3t")
"""


@dataclass(frozen=True)
class Around:
    """The code before the blocks of a page, and the code after them."""

    before: str = ""
    after: str = ""


TWO_TALK = """
async with WebsocketCommunicator(application, {path!r}) as ada, WebsocketCommunicator(application, {path!r}) as bob:
    await ada.send_json_to({{"text": "hello"}})
    assert [await each.receive_json_from() for each in (ada, bob)] == [{{"text": "hello"}}] * 2
"""

RUN = {
    "index.md": Around(after=USERS + TWO_TALK.format(path="/ws/")),
    "explanation/reliability.md": Around(
        after="""
from headrace import RedisChannelLayer

RedisChannelLayer(**CHANNEL_LAYERS["default"]["CONFIG"])
"""
    ),
    "how-to/moving-from-channels.md": Around(
        before="import asyncio\n\nfrom headrace import channel_layers, get_channel_layer",
        after="""
from headrace import InMemoryChannelLayer

assert CHANNEL_LAYERS["default"]["BACKEND"] == f"headrace.layers.{InMemoryChannelLayer.__name__}"
assert isinstance(layer, InMemoryChannelLayer)
""",
    ),
    "how-to/moving-a-fleet.md": Around(
        before=SECRETS, after="assert 'wire' not in CHANNEL_LAYERS['default']['CONFIG']"
    ),
    "how-to/redis.md": Around(before=SECRETS, after="assert CHANNEL_LAYERS['default']['CONFIG']['hosts']"),
    "how-to/without-django.md": Around(
        before="from headrace import get_channel_layer\n\nlayer = get_channel_layer()",
        after=USERS + TWO_TALK.format(path="/ws/lobby/"),
    ),
    "how-to/slow-sockets.md": Around(
        before="""
from headrace import AsyncWebsocketConsumer, encode_once, get_channel_layer

layer = get_channel_layer()
""",
        after=USERS
        + """
async with WebsocketCommunicator(Ticker, "/") as client:
    await layer.group_send("ticker", {"type": "ticker.price", "text": encode_once({"price": 12})})
    assert await client.receive_json_from() == {"price": 12}
assert (Prices.max_backlog, Prices.overflow) == (20, "coalesce")
""",
    ),
    "how-to/end-sessions.md": Around(
        before="from headrace import consumer_stats",
        after=USERS
        + """
import time


class Short(Account):
    async def receive_json(self, content):
        self.expires_at = time.time()


async with WebsocketCommunicator(Short, "/") as client:
    await client.send_json_to("end")
    assert await client.receive_json_from() == {"error": "please sign in again"}
    assert await client.receive_output() == {"type": "websocket.close", "code": 4401}
assert consumer_stats(Short).closed_expired == 1

import headrace


class Mine(Known):
    groups = [group_name("user", 7)]


async with WebsocketCommunicator(Mine, "/") as client:
    await sign_out(7)
    assert await client.receive_from() == "signed out"
    assert await client.receive_output() == {"type": "websocket.close", "code": 4401}

async with WebsocketCommunicator(application, "/ws/") as client:
    await headrace.drain(20, 0)
    assert await client.receive_from() == "back in a moment"
    assert await client.receive_output() == {"type": "websocket.close", "code": 1012}
assert consumer_stats(Chat).closed_drained == 1
assert headrace.is_draining()
""",
    ),
    "how-to/limit-clients.md": Around(
        before="from headrace import consumer_stats",
        after=USERS
        + """
async with WebsocketCommunicator(Chat, "/") as client:
    for number in range(30):
        await client.send_json_to({"text": number})
    assert [(await client.receive_json_from())["text"] for _ in range(20)] == [str(number) for number in range(20)]
    assert consumer_stats(Chat).dropped_over_rate in range(1, 11)
assert Orders._headrace.rate.closes
""",
    ),
    "how-to/authenticate.md": Around(
        before=DJANGO,
        after=USERS
        + """
async def hello(application, path="/ws/", **arguments):
    async with WebsocketCommunicator(application, path, **arguments) as client:
        return (await client.receive_json_from())["hello"]


here = [(b"origin", b"http://localhost"), (b"host", b"localhost")]
assert await is_refused(application, "/ws/", headers=here)
there = [(b"origin", b"http://elsewhere.example"), (b"host", b"localhost")]
assert await is_refused(Knows(AllowedHostsOriginValidator(websockets), "ada"), "/ws/", headers=there)
assert await hello(Knows(AllowedHostsOriginValidator(websockets), "ada"), headers=here) == "ada"

assert await hello(by_token, "/ws/?token=k3y-of-ada") == "ada"
assert await hello(by_token, subprotocols=["Token.k3y-of-ada"]) == "ada"
assert await is_refused(by_token, "/ws/?token=k3y-of-nobody")
assert await is_refused(by_token, "/ws/")

assert await hello(by_token, headers=[(b"authorization", b"Bearer k3y-of-ada")]) == "ada"
assert await hello(by_signature, subprotocols=[f"Token.{token_for(7)}"]) == "number 7"
assert await is_refused(by_signature, f"/ws/?token={token_for(7)}x")

assert await hello(FromHeader(websockets), headers=[(b"x-user", b"grace")]) == "grace"
""",
    ),
    "how-to/deploy.md": Around(
        after=USERS
        + """
from headrace import InMemoryChannelLayer
from headrace.testing import ApplicationCommunicator

configure({"default": InMemoryChannelLayer()})  # no server is needed to begin
served = ApplicationCommunicator(application, {"type": "lifespan"})
for kind in ("startup", "shutdown"):
    await served.send_input({"type": f"lifespan.{kind}"})
    assert (await served.receive_output())["type"] == f"lifespan.{kind}.complete"
await served.wait()
async with WebsocketCommunicator(application, "/ws/"):
    pass
"""
    ),
    "how-to/send-to-a-user.md": Around(
        before=DJANGO,
        after=USERS
        + """
class Served(Inbox):
    def connect(self):
        super().connect()
        self.send({"subscribed": True})


async with WebsocketCommunicator(Knows(Notifications, "ada"), "/") as first:
    async with WebsocketCommunicator(Knows(Notifications, "ada"), "/") as second:
        async with WebsocketCommunicator(Knows(Notifications, "bob", 8), "/") as bob:
            notify(7, "hello")
            assert [await each.receive_json_from() for each in (first, second)] == [{"text": "hello"}] * 2
            (channel,) = get_channel_layer().group_channels("user.8")
            await reply(channel, "for bob")
            assert await bob.receive_json_from() == {"text": "for bob"}
            log_out_everywhere(8)
            assert (await bob.receive_close())[0] == 4401
assert await is_refused(Knows(Notifications, None), "/")
async with WebsocketCommunicator(Knows(Served.as_asgi(), "ada"), "/") as client:
    assert await client.receive_json_from() == {"subscribed": True}
    Broadcaster().broadcast("user.7", {"text": "for you"})
    assert await client.receive_json_from() == {"text": "for you"}
""",
    ),
    "how-to/rooms.md": Around(
        after=USERS
        + """
import asyncio

lines = []
writer = asyncio.create_task(write_down("tea", lines))
async with WebsocketCommunicator(application, "/ws/") as ada, WebsocketCommunicator(application, "/ws/") as bob:
    for client in (ada, bob):
        await client.send_json_to({"join": "tea"})
    await settle()
    await ada.send_json_to({"room": "tea", "text": "hello"})
    assert await bob.receive_json_from() == {"room": "tea", "text": "hello"}
    assert await ada.receive_nothing()
    foreign = {"room": "garden", "text": "hello"}
    for refused in ({"join": "a\\nb"}, {"join": "x" * 51}, foreign, {"leave": "garden"}, [1]):
        await ada.send_json_to(refused)
        assert "error" in await ada.receive_json_from()
    await bob.send_json_to({"leave": "tea"})
    await settle()
    assert get_channel_layer().group_count(group_name("room", "tea")) == 2
assert lines == ["hello"]
writer.cancel()
""",
    ),
    "how-to/who-is-online.md": Around(
        after=USERS
        + """
async with WebsocketCommunicator(Knows(Online, "ada"), "/") as first:
    assert await first.receive_json_from() == {"online": ["ada"]}
    async with WebsocketCommunicator(Knows(Online, "bob"), "/") as bob:
        assert [await each.receive_json_from() for each in (first, bob)] == [{"online": ["ada", "bob"]}] * 2
        async with WebsocketCommunicator(Knows(Online, "ada"), "/") as second:
            assert await second.receive_json_from() == {"online": ["ada", "bob"]}
            assert (how_many("online"), len(which("online"))) == (3, 3)
        await settle()
        assert await bob.receive_nothing()
    assert await first.receive_json_from() == {"online": ["ada"]}
assert not connections
""",
    ),
    "how-to/presence.md": Around(
        before="""
from headrace import BaseSocketServer, InMemoryChannelLayer, ProtocolTypeRouter, URLRouter, configure, path
from headrace import AsyncJsonWebsocketConsumer, get_channel_layer
""",
        after=USERS
        + """
layer = get_channel_layer()
async with WebsocketCommunicator(Knows(application, "ada"), "/ws/tea/") as ada:
    assert (await ada.receive_json_from())["scope"] == "full"
    joined = await ada.receive_json_from()
    assert joined["scope"] == "changes"
    assert list(joined["joins"].values()) == [[{"name": "ada"}]]
async with WebsocketCommunicator(Knows(Live, "ada"), "/") as ada:
    assert (await ada.receive_json_from())["topic"] == "room.tea"
""",
    ),
    "how-to/history.md": Around(
        before="""
from headrace import BaseSocketServer, InMemoryChannelLayer, ProtocolTypeRouter, URLRouter, configure, path
from headrace import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, get_channel_layer

layer = InMemoryChannelLayer(history={"room.*": {"size": 100, "ttl": 300}})
""",
        after=USERS
        + """
layer = get_channel_layer()
await layer.group_send("state.ticker", {"type": "price", "text": "1"})
await layer.group_send("state.ticker", {"type": "price", "text": "2"})
async with WebsocketCommunicator(Ticker, "/") as client:
    assert await client.receive_from() == "2"
async with WebsocketCommunicator(application, "/ws/tea/") as ada:
    here = (await ada.receive_json_from())["at"]
    for text in ("one", "two"):
        await ada.send_json_to({"text": text})
        assert (await ada.receive_json_from())["text"] == text
    async with WebsocketCommunicator(application, f"/ws/tea/?resume={here}") as bob:
        frames = [await bob.receive_json_from() for _ in range(4)]
        assert [frame.get("text") for frame in frames] == [None, "one", "two", None]
        assert frames[-1] == {"resumed": True}
    async with WebsocketCommunicator(application, "/ws/tea/?resume=nonsense") as eve:
        frames = [await eve.receive_json_from() for _ in range(4)]
        assert [frame.get("text") for frame in frames] == [None, None, "one", "two"]
        assert frames[1] == {"resumed": False}
async with WebsocketCommunicator(Live, "/") as client:
    assert await client.receive_json_from() == {"complete": True}
""",
    ),
    "how-to/last-messages.md": Around(
        after=USERS
        + """
async with WebsocketCommunicator(application, "/ws/tea/") as ada:
    for text in ("one", "two"):
        await ada.send_json_to({"text": text})
        assert [each["text"] for each in (await ada.receive_json_from())["messages"]] == [text]
    async with WebsocketCommunicator(application, "/ws/tea/") as bob:
        await bob.send_json_to({"since": 1})
        assert await bob.receive_json_from() == {"messages": [{"number": 2, "text": "two"}]}
async with WebsocketCommunicator(URLRouter([path("<slug:room>/", Recovering)]), "/tea/") as client:
    await settle()
    from headrace import get_channel_layer

    await get_channel_layer().group_send("tea", {"type": "room.gap", "group": "tea", "missed": 0})
    assert await client.receive_json_from() == {"ask_again": True}
""",
    ),
    "how-to/background.md": Around(
        before=DJANGO,
        after="""
import asyncio
from types import SimpleNamespace

from django.db import connections


def save():
    order_saved(None, SimpleNamespace(pk=3))
    connections.close_all()


layer = get_channel_layer()
async with layer.subscription("orders", "user.7", "lobby") as inbox:
    await asyncio.to_thread(save)
    report_progress(7, 0.5)
    announce("hello")
    assert await anext(inbox) == {"type": "order.saved", "order": 3}
    assert await anext(inbox) == {"type": "progress", "done": 0.5}
    assert (await anext(inbox))["text"] == "hello"

from headrace.worker import Worker

worker = Worker(application, ["thumbnails"], layer)
working = asyncio.create_task(worker.handle())
await layer.send("thumbnails", {"type": "make", "file": "1.png"})
while not made:
    await asyncio.sleep(0)
worker.stop()
await working
assert made == ["1.png"]
""",
    ),
    "how-to/monitoring.md": Around(
        after=USERS
        + """
answer = await HttpCommunicator(application, "GET", "/metrics").get_response()
assert answer["status"] == 200
lines = dict(line.split() for line in answer["body"].decode().splitlines())
assert lines["headrace_channels"] == "1"
assert set(lines) == {f"headrace_{name}" for name in FIELDS}
from headrace import LinkStats

assert [name for name in [*LINK, "state"] if not hasattr(LinkStats, name)] == []
assert numbers == {"open": 0, "opened": 0, "errors": 0}
assert await is_healthy()


class Failing(Reporting):
    async def receive(self, text_data=None, bytes_data=None):
        raise ZeroDivisionError


try:
    async with WebsocketCommunicator(Failing, "/") as client:
        await client.send_to("hello")
        await settle()
except ZeroDivisionError:
    assert failed == [("ZeroDivisionError", "websocket.receive")]
else:
    raise AssertionError("the exception was kept from the test")
""",
    ),
}
"""The pages whose blocks are run one after the other, as one program."""

ELSEWHERE = {
    "how-to/sockets.md": "tests/sockets/test_docs.py",
    "how-to/testing.md": "tests/meta/test_docs.py",
    "tutorials/django-chat.md": "tests/examples/test_tutorials.py",
    "tutorials/fastapi-chat.md": "tests/examples/test_tutorials.py",
    "tutorials/counter.md": "tests/examples/test_tutorials.py",
}
"""The pages whose blocks other tests run."""
