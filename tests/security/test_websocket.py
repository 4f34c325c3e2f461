"""Only the pages that are allowed to may open a WebSocket."""

import asyncio
import subprocess
import sys
import textwrap
from typing import Any
from urllib.parse import urlparse

import channels.security.websocket
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.paths import ImproperlyConfigured
from headrace.security.websocket import AllowedHostsOriginValidator, OriginValidator, WebsocketDenier
from headrace.testing import WebsocketCommunicator

NOBODY: Any = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Accept without asking."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close"})


async def answers(application: Any, headers: list[tuple[bytes, bytes]]) -> list[str]:
    """Open a connection; return the types of what is sent until it is closed."""
    incoming = [{"type": "websocket.disconnect", "code": 1006}, {"type": "websocket.connect"}]
    sent = []
    closed = asyncio.Event()

    async def receive() -> Any:
        if len(incoming) == 1:
            await closed.wait()
        return incoming.pop()

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "websocket.close":
            closed.set()

    await application({"type": "websocket", "path": "/", "headers": headers}, receive, send)
    return sent


async def lets_in(allowed: list[str], origin: str | None) -> bool:
    headers = [(b"host", b"here")] + ([] if origin is None else [(b"origin", origin.encode("latin1"))])
    sent = await answers(OriginValidator(app, allowed), headers)
    assert sent in (["websocket.accept", "websocket.close"], ["websocket.close"])
    return len(sent) == 2


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        (["*"], None),
        (["*"], "http://any.where"),
        (["*"], "http://[broken"),
        (["example.com"], "http://example.com"),
        (["example.com"], "https://EXAMPLE.com:8443"),
        (["Example.com"], "http://example.com"),
        ([".example.com"], "http://example.com"),
        ([".example.com"], "http://a.b.example.com"),
        (["http://.example.com"], "http://a.example.com"),
        (["http://example.com"], "http://example.com:80"),
        (["https://example.com:443"], "https://example.com"),
        (["wss://example.com"], "wss://example.com:443"),
        (["https://example.com:8443"], "https://example.com:8443"),
        (["example.com:8000"], "http://example.com:8000"),
        (["example.com:80"], "http://example.com"),
        (["[::1]"], "http://[::1]:8000"),
        (["::1"], "http://[::1]:8000"),
        (["127.0.0.1"], "http://127.0.0.1:8000"),
        (["other", "example.com"], "http://example.com"),
    ],
)
async def test_an_origin_that_is_allowed_is_let_in(allowed: list[str], origin: str | None) -> None:
    assert await lets_in(allowed, origin)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ([], "http://example.com"),
        (["example.com"], None),
        (["example.com"], "null"),
        (["example.com"], ""),
        (["example.com"], "http://[broken"),
        (["example.com"], "http://example.com:port"),
        (["example.com"], "http://example.com:99999"),
        (["example.com"], "http://a.example.com"),
        (["example.com"], "http://example.com.evil.org"),
        (["example.com"], "http://evil.org/example.com"),
        (["example.com"], "http://example.com@evil.org"),
        ([".example.com"], "http://evilexample.com"),
        (["http://example.com"], "https://example.com"),
        (["http://example.com"], "http://example.com:8000"),
        (["example.com:8000"], "http://example.com"),
        (["127.0.0.1:8000"], "http://127.0.0.1:9000"),
        ([""], "http://example.com"),
    ],
)
async def test_an_origin_that_is_not_allowed_is_refused(allowed: list[str], origin: str | None) -> None:
    assert not await lets_in(allowed, origin)


HOSTS = ["example.com", ".example.com", "EXAMPLE.com", "a.example.com", "localhost", "127.0.0.1", "[::1]", "x" * 9]
ORIGINS = st.builds(
    lambda scheme, host, port: f"{scheme}://{host}{port}",
    st.sampled_from(["http", "https", "ws", "wss", "ftp"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["", ":80", ":443", ":8000"]),
)


@given(patterns=st.lists(ORIGINS | st.sampled_from([*HOSTS, "*", "", "::1"]), max_size=3), origin=st.none() | ORIGINS)
@example(patterns=["::1"], origin="http://[::1]")
def test_what_channels_allows_is_allowed_and_nothing_else(patterns: list[str], origin: str | None) -> None:
    """But for ports without a scheme."""
    parsed = None if origin is None else urlparse(origin)
    ours, theirs = (
        package(app, patterns).valid_origin(parsed)
        for package in (OriginValidator, channels.security.websocket.OriginValidator)
    )
    assert ours == theirs


async def test_another_type_of_scope_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^You cannot use OriginValidator on a non-WebSocket connection$"):
        await OriginValidator(app, ["*"])({"type": "http"}, NOBODY, NOBODY)


async def test_a_scope_without_headers_has_no_origin() -> None:
    application = OriginValidator(app, ["example.com"])
    sent: list[Any] = []

    async def receive() -> Any:
        if sent:
            return {"type": "websocket.disconnect", "code": 1006}
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await application({"type": "websocket", "path": "/"}, receive, send)
    assert sent == [{"type": "websocket.close"}]


@pytest.mark.parametrize("allowed", ["example.com", "*", b"x"])
def test_a_single_text_is_no_list_of_patterns(allowed: Any) -> None:
    with pytest.raises(TypeError, match=r"allowed_origins must be a list of patterns, got .*; put it into a list"):
        OriginValidator(app, allowed)


def test_a_pattern_that_cannot_be_is_told_when_the_validator_is_made() -> None:
    with pytest.raises(TypeError, match="a pattern of allowed_origins must be a str, got None"):
        OriginValidator(app, [None])  # type: ignore[list-item]  # what is tested
    with pytest.raises(ValueError, match=r"'http://x:port' in allowed_origins is not \[scheme://\]host\[:port\]"):
        OriginValidator(app, ["http://x:port"])


async def test_a_consumer_class_is_run() -> None:
    class Greets(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.close()

    sent = await answers(OriginValidator(Greets, ["*"]), [])
    assert sent == ["websocket.accept", "websocket.close"]


async def test_a_subclass_may_decide_by_itself() -> None:
    class Nobody(OriginValidator):
        def valid_origin(self, parsed_origin: Any) -> bool:
            return False

    assert await answers(Nobody(app, ["*"]), []) == ["websocket.close"]


async def test_the_denier_refuses_at_the_handshake() -> None:
    assert issubclass(WebsocketDenier, AsyncWebsocketConsumer)
    assert await answers(WebsocketDenier(), []) == ["websocket.close"]
    assert await answers(WebsocketDenier.as_asgi(), []) == ["websocket.close"]


def test_allowed_hosts_without_django_says_what_to_use() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"say which origins are allowed with OriginValidator\("):
        AllowedHostsOriginValidator(app)


@pytest.mark.parametrize(
    ("configured", "allowed"),
    [
        ("ALLOWED_HOSTS=['example.com', '.example.org']", ["example.com", ".example.org"]),
        ("DEBUG=True", ["localhost", "127.0.0.1", "[::1]"]),
        ("DEBUG=True, ALLOWED_HOSTS=['x']", ["x"]),
        ("DEBUG=False", []),
    ],
)
def test_allowed_hosts_are_those_of_djangos_settings(configured: str, allowed: list[str]) -> None:
    program = f"""
    from django.conf import settings
    settings.configure({configured})
    from headrace.security.websocket import AllowedHostsOriginValidator, OriginValidator
    validator = AllowedHostsOriginValidator(print)
    assert type(validator) is OriginValidator
    print(validator.allowed_origins)
    """
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (process.stderr, process.stdout) == ("", f"{allowed}\n")


async def refusal(origins: list[bytes], allowed: list[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Connect with Origins, and return what the log says."""
    headers = [(b"origin", origin) for origin in origins]
    communicator = WebsocketCommunicator(OriginValidator(AsyncWebsocketConsumer.as_asgi(), allowed), "/ws/", headers)
    assert (await communicator.connect())[0] is False
    await communicator.disconnect()
    return [record.getMessage() for record in caplog.records if record.name == "headrace.security"]


async def test_a_refusal_names_the_origin_and_the_patterns(caplog: pytest.LogCaptureFixture) -> None:
    (said,) = await refusal([b"https://evil.example"], ["good.example", ".other.example"], caplog)
    assert "a WebSocket to '/ws/' is refused" in said
    assert "its Origin 'https://evil.example' is not allowed by ['good.example', '.other.example']" in said


async def test_a_refusal_without_an_origin_says_so_and_a_long_one_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    (said,) = await refusal([], ["good.example"], caplog)
    assert "its Origin is missing or cannot be parsed" in said
    caplog.clear()
    (said,) = await refusal([b"https://" + b"x" * 10_000], ["good.example"], caplog)
    assert len(said) < 400


def test_a_pattern_that_allows_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    OriginValidator(AsyncWebsocketConsumer, ["*", ".example.com", "https://example.com"])
    assert caplog.text == ""
    OriginValidator(AsyncWebsocketConsumer, ["*.example.com"])
    assert "'*.example.com' in allowed_origins allows nothing" in caplog.text
