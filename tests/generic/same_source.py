"""Runs the same consumers on Channels' classes or on ours, and prints what came out; run by ``test_same_source.py``.

Arguments: the package of the classes, and that of the layer, each "channels" or "headrace".
"""

import asyncio
import importlib
import inspect
import json
import sys
from typing import Any

from django.conf import settings

CLASSES, LAYER = sys.argv[1:]
LAYERS = {"default": {"BACKEND": f"{LAYER}.layers.InMemoryChannelLayer"}} if LAYER != "none" else {}
settings.configure(CHANNEL_LAYERS=LAYERS, DATABASES={})

consumer, websocket, http = (
    importlib.import_module(f"{CLASSES}.{name}") for name in ("consumer", "generic.websocket", "generic.http")
)
from channels.exceptions import AcceptConnection, DenyConnection, StopConsumer  # noqa: E402  # needs the settings
from channels.layers import get_channel_layer  # noqa: E402

CONNECT = {"type": "websocket.connect"}
LEAVE = {"type": "websocket.disconnect", "code": 1001}


def text(data: Any) -> dict[str, Any]:
    """Return a text frame."""
    return {"type": "websocket.receive", "text": data}


class Run:
    """One connection: what is said to the application, and what it says."""

    def __init__(self, app: Any, scope: dict[str, Any] | None = None) -> None:
        self.app = app
        self.scope = scope or {"type": "websocket", "path": "/"}
        self.sent: list[Any] = []
        self.log: list[Any] = []
        self.news = asyncio.Event()
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        self.news.set()

    async def until(self, count: int) -> None:
        """Wait until the application has sent so many messages."""
        while len(self.sent) < count and not self.task.done():
            self.news.clear()
            sending = asyncio.ensure_future(self.news.wait())
            await asyncio.wait({sending, self.task}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            sending.cancel()

    async def __call__(self, *steps: Any) -> dict[str, Any]:
        self.task = asyncio.ensure_future(self.app(self.scope, self.incoming.get, self.send))
        for step in steps:
            if isinstance(step, int):
                await self.until(step)
            elif callable(step):
                await step()
            else:
                self.incoming.put_nowait(step)
        await asyncio.wait({self.task}, timeout=30)
        error: BaseException | None = TimeoutError("still running")
        if self.task.done():
            error = self.task.exception()
        else:
            self.task.cancel()
            await asyncio.wait({self.task})
        kind = None if error is None else [base.__name__ for base in type(error).__mro__]
        return {"sent": repr(self.sent), "log": repr(self.log), "kind": kind, "text": str(error or "")}


def both(name: str) -> list[type[Any]]:
    """Return the async and the sync class."""
    return [getattr(websocket, f"Async{name}"), getattr(websocket, name)]


def twin(base: type[Any], **methods: Any) -> type[Any]:
    """Derive a class whose methods are generators that yield calls: awaited in the async class, made in the sync."""

    def asynchronous(body: Any) -> Any:
        async def method(self: Any, *args: Any, **kwargs: Any) -> None:
            for call in body(self, *args, **kwargs):
                if inspect.isawaitable(call):
                    await call

        return method

    def synchronous(body: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> None:
            for _call in body(self, *args, **kwargs):
                pass

        return method

    wrap = synchronous if base._sync else asynchronous
    attributes = {name: wrap(value) if inspect.isgeneratorfunction(value) else value for name, value in methods.items()}
    return type("Same", (base,), attributes)


CASES: dict[str, Any] = {}


def case(function: Any) -> Any:
    """Run a function for the async and for the sync class."""
    json_too = "Json" if "json" in function.__name__ else ""
    for base in both(f"{json_too}WebsocketConsumer"):
        kind = "sync" if base._sync else "async"
        CASES[f"{function.__name__}[{kind}]"] = lambda base=base: function(base)
    return function


@case
async def accepts(base: Any) -> Any:
    return await Run(base())(CONNECT, LEAVE)


def accept_with(**arguments: Any) -> Any:
    def connect(self: Any) -> Any:
        yield self.accept(**arguments)

    return connect


@case
async def accept_forms(base: Any) -> Any:
    forms: list[dict[str, Any]] = [
        {"subprotocol": "chat"},
        {"headers": [(b"x", b"y")]},
        {"headers": ((b"x", b"y"), (b"z", b""))},
        {"headers": []},
        {"headers": ()},
        {"headers": None, "subprotocol": None},
        {"subprotocol": ""},
    ]
    return [await Run(twin(base, connect=accept_with(**form))())(CONNECT, LEAVE) for form in forms]


@case
async def close_forms(base: Any) -> Any:
    forms: list[tuple[Any, ...]] = [
        (),
        (None,),
        (True,),
        (0,),
        (False,),
        (4000,),
        (4000, "why"),
        (None, "why"),
        (4000, ""),
        (1000, None),
    ]

    def closing(form: tuple[Any, ...]) -> Any:
        def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
            yield self.close(*form)

        return receive

    return [await Run(twin(base, receive=closing(form))())(CONNECT, text("x"), 2, LEAVE) for form in forms]


@case
async def close_before_accept(base: Any) -> Any:
    def connect(self: Any) -> Any:
        yield self.close(4003, reason="no")

    return await Run(twin(base, connect=connect)())(CONNECT, 1, LEAVE)


@case
async def send_forms(base: Any) -> Any:
    forms: list[dict[str, Any]] = [
        {"text_data": "x"},
        {"bytes_data": b"x"},
        {"text_data": "x", "bytes_data": b"y"},
        {"text_data": ""},
        {"bytes_data": b""},
        {"text_data": "", "bytes_data": b"y"},
        {"text_data": "x", "close": True},
        {"text_data": "x", "close": 4001},
        {"text_data": "x", "close": False},
        {"text_data": "x", "close": 0},
        {"text_data": None, "bytes_data": b"y"},
        {},
        {"text_data": None},
        {"close": True},
    ]

    def sending(form: dict[str, Any]) -> Any:
        def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
            yield self.send(**form)

        return receive

    results = []
    for form in forms:
        count = 3 if form.get("close") else 2
        results.append(await Run(twin(base, receive=sending(form))())(CONNECT, text("x"), count, LEAVE))
    return results


@case
async def frames(base: Any) -> Any:
    """Which arguments receive() gets, for each form of a frame; hypercorn's have both keys."""
    run = Run(None)

    def receive(self: Any, *args: Any, **kwargs: Any) -> Any:
        run.log.append((args, kwargs))
        yield None

    run.app = twin(base, receive=receive)()
    frames = [
        text("x"),
        text(""),
        {"type": "websocket.receive", "bytes": b"x"},
        {"type": "websocket.receive", "text": None, "bytes": b"x"},
        {"type": "websocket.receive", "text": "x", "bytes": None},
        {"type": "websocket.receive", "text": "x", "bytes": b"y"},
        {"type": "websocket.receive", "text": None, "bytes": None},
    ]
    return await run(CONNECT, *frames, LEAVE)


@case
async def a_frame_without_anything(base: Any) -> Any:
    return await Run(base())(CONNECT, {"type": "websocket.receive"})


@case
async def accept_and_deny_connection(base: Any) -> Any:
    def raising(error: type[Exception]) -> Any:
        def connect(self: Any) -> Any:
            yield None
            raise error

        return connect

    results = []
    for error in (AcceptConnection, DenyConnection, StopConsumer):
        results.append(await Run(twin(base, connect=raising(error))())(CONNECT, 1, LEAVE))
    return results


@case
async def groups(base: Any) -> Any:
    """The class's groups are joined before connect() and left before disconnect()."""
    run = Run(None)
    layer: Any = get_channel_layer()

    def note(self: Any, what: str) -> None:
        run.log.append((what, [self.channel_name in layer.groups.get(group, {}) for group in ("a", "b")]))

    def connect(self: Any) -> Any:
        note(self, "connect")
        yield self.accept()

    def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
        note(self, "receive")
        yield None

    def disconnect(self: Any, code: int) -> Any:
        note(self, f"disconnect {code}")
        yield None

    run.app = twin(base, groups=["a", "b"], connect=connect, receive=receive, disconnect=disconnect)()
    return await run(CONNECT, text("x"), LEAVE)


@case
async def messages_of_the_layer(base: Any) -> Any:
    layer: Any = get_channel_layer()

    def chat_message(self: Any, event: dict[str, Any]) -> Any:
        yield self.send(text_data=event["text"])

    async def tell() -> None:
        await layer.group_send("a", {"type": "chat.message", "text": "1"})
        await layer.group_send("a", {"type": "chat_message", "text": "2"})

    return await Run(twin(base, groups=["a"], chat_message=chat_message)())(CONNECT, 1, tell, 3, LEAVE)


@case
async def groups_without_a_layer(base: Any) -> Any:
    run = Run(None)

    def connect(self: Any) -> Any:
        run.log.append((self.channel_layer, hasattr(self, "channel_name")))
        yield self.accept()

    first = await Run(twin(base, groups=["a"], channel_layer_alias="nowhere")())(CONNECT)
    run.app = twin(base, channel_layer_alias="nowhere", connect=connect)()
    return [first, await run(CONNECT, LEAVE)]


@case
async def what_has_no_handler(base: Any) -> Any:
    messages = [{"no": "type"}, {"type": "_x"}, {"type": ".x"}, {"type": "no.handler"}, {"type": "no_handler"}]
    return [await Run(base())(CONNECT, message) for message in messages]


@case
async def errors_go_on(base: Any) -> Any:
    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        yield None
        raise LookupError("of the test", 3)

    results = []
    for name in ("connect", "receive", "disconnect"):
        results.append(await Run(twin(base, **{name: failing})())(CONNECT, text("x"), LEAVE))
    return results


@case
async def arguments_of_the_class(base: Any) -> Any:
    def take(self: Any, *args: Any, foo: int = 0, **kwargs: Any) -> None:
        base.__init__(self, *args, **kwargs)

    taking: Any = type("Taking", (base,), {"__init__": take})
    app = taking.as_asgi(foo=1, bar=2)
    result = await Run(app)(CONNECT, LEAVE)
    about = (app.__name__, app.__doc__ == taking.__doc__, app.__module__ == __name__, app.__wrapped__ is taking)
    result["log"] = repr((about, app.consumer_class is taking, app.consumer_initkwargs, base(1, 2, x=3).groups))
    return result


@case
async def json_frames(base: Any) -> Any:
    run = Run(None)

    def receive_json(self: Any, content: Any, **kwargs: Any) -> Any:
        run.log.append((content, kwargs))
        yield self.send_json({"got": content, "umlaut": "\u00e4"})

    run.app = twin(base, receive_json=receive_json)()
    frames = [text('{"a": 1}'), text("[1, null]"), text('"x"'), text("0"), {**text("true"), "bytes": None}]
    return await run(CONNECT, *frames, LEAVE)


@case
async def json_that_is_none(base: Any) -> Any:
    frames = [text("{"), text(""), {"type": "websocket.receive", "bytes": b"{}"}, {**text(None), "bytes": b"{}"}]
    return [await Run(base())(CONNECT, frame) for frame in frames]


@case
async def json_that_cannot_be_encoded(base: Any) -> Any:
    def receive_json(self: Any, content: Any, **kwargs: Any) -> Any:
        yield self.send_json({1, 2})

    return await Run(twin(base, receive_json=receive_json)())(CONNECT, text("1"))


@case
async def json_sent_and_closed(base: Any) -> Any:
    def receive_json(self: Any, content: Any, **kwargs: Any) -> Any:
        yield self.send_json(content, close=4002)

    return await Run(twin(base, receive_json=receive_json)())(CONNECT, text("1"), 3, LEAVE)


@case
async def json_of_the_users_own(base: Any) -> Any:
    run = Run(None)

    def decode_json(cls: Any, text_data: str) -> Any:
        return text_data.upper()

    def encode_json(cls: Any, content: Any) -> str:
        return f"<{content}>"

    async def adecode_json(cls: Any, text_data: str) -> Any:
        return text_data.upper()

    async def aencode_json(cls: Any, content: Any) -> str:
        return f"<{content}>"

    def receive_json(self: Any, content: Any, **kwargs: Any) -> Any:
        yield self.send_json(content)

    run.app = twin(
        base,
        receive_json=receive_json,
        decode_json=classmethod(decode_json if base._sync else adecode_json),
        encode_json=classmethod(encode_json if base._sync else aencode_json),
    )()
    run.log.append([inspect.iscoroutinefunction(getattr(base, name)) for name in ("encode_json", "decode_json")])
    return await run(CONNECT, text("x"), LEAVE)


async def plain_consumers() -> Any:
    """The base classes, as apps and as instances."""

    class Async(consumer.AsyncConsumer):  # type: ignore[misc,name-defined]  # one of two
        async def test_message(self, message: Any) -> None:
            await self.send({"type": "reply", "n": message["n"]})
            if message["n"] == 2:
                raise StopConsumer

    class Sync(consumer.SyncConsumer):  # type: ignore[misc,name-defined]  # one of two
        def test_message(self, message: Any) -> None:
            self.send({"type": "reply", "n": message["n"]})
            if message["n"] == 2:
                raise StopConsumer

    messages = [{"type": "test.message", "n": n} for n in range(3)]
    apps = [Async(), Async.as_asgi(), Sync(), Sync.as_asgi()]
    results = [await Run(app, {"type": "test"})(*messages) for app in apps]
    try:
        await Async.as_asgi(foo=1)({"type": "test"}, None, None)
    except TypeError:  # Python's own, and its text
        results.append({"sent": "", "log": "", "kind": ["TypeError"], "text": ""})
    return results


async def client_before_layer() -> Any:
    """The client's message goes first when both come in one turn of the loop."""
    run = Run(None)
    layer: Any = get_channel_layer()

    class Here(websocket.AsyncWebsocketConsumer):  # type: ignore[misc,name-defined]  # one of two
        groups = ("a",)

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data=text_data)

        async def note(self, event: Any) -> None:
            await self.send(text_data="note")

    run.app = Here()

    async def tell() -> None:
        run.incoming.put_nowait(text("frame"))
        await layer.group_send("a", {"type": "note"})

    return await run(CONNECT, 1, tell, 3, LEAVE)


async def http_requests() -> Any:
    """Bodies in parts, headers in all forms, and errors."""

    class Echo(http.AsyncHttpConsumer):  # type: ignore[misc,name-defined]  # one of two
        headers: Any = None

        async def handle(self, body: bytes) -> None:
            await self.send_response(200, body, headers=self.headers)

        async def disconnect(self) -> None:
            log.append("disconnect")

    class Parts(Echo):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            await self.send_body(b"a", more_body=True)
            await self.send_body(b"b")

    class Wrong(Echo):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(status=201)
            await self.send_body("text")

    log: list[str] = []
    whole = [{"type": "http.request", "body": b"x"}]
    parts = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]
    apps = [type("E", (Echo,), {"headers": headers}) for headers in (None, [], [(b"a", b"b")], {b"a": b"b"})]
    results = []
    for app in (*apps, Parts, Wrong, http.AsyncHttpConsumer):
        for messages in (whole, parts):
            log.clear()
            run = Run(app(), {"type": "http", "path": "/"})
            run.log = log
            results.append(await run(*messages))
    log.clear()
    run = Run(Echo(), {"type": "http", "path": "/"})
    run.log = log
    results.append(await run(parts[0], {"type": "http.disconnect"}))
    return results


CASES |= {function.__name__: function for function in (plain_consumers, client_before_layer, http_requests)}
NEEDS_LAYER = ("groups[", "messages_of_the_layer", "client_before_layer")


def outcomes() -> dict[str, Any]:
    """Run all cases, each in a loop and on a layer of its own."""
    from channels.layers import channel_layers

    results = {}
    for name, run in CASES.items():
        if LAYER == "none" and name.startswith(NEEDS_LAYER):
            continue
        channel_layers.backends = {}
        result = asyncio.run(run())
        results[name] = result if isinstance(result, list) else [result]
    return results


if __name__ == "__main__":
    print(json.dumps(outcomes()))
