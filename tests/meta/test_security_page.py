"""docs/explanation/security.md names each bound, and the defaults that it names are those of the code."""

import inspect
import re
from pathlib import Path

import pytest

from headrace._dispatch.threads import THREADS
from headrace._layers.base import BaseChannelLayer
from headrace._sockets import backend, outgoing
from headrace._websocket.closing import CLOSE_TIMEOUT
from headrace._websocket.read_ahead import READ_AHEAD
from headrace.consumer import AsyncConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.sockets import BaseSocketServer

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
UNITS = {"": 1, "s": 1, "characters": 1, "MiB": 1 << 20, "KiB": 1 << 10}


def default_of(row: str) -> float | None:
    """Return the default in the row of the page that begins with these words."""
    page = (ROOT / "docs" / "explanation" / "security.md").read_text()
    (cells,) = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| {row} |")]
    number, unit = re.match(r"(\d+|none) ?(MiB|KiB|s|characters|)", cells[2]).groups()  # type: ignore[union-attr]
    return None if number == "none" else int(number) * UNITS[unit]


def setting_of(layer_class: type, name: str) -> object:
    return inspect.signature(layer_class).parameters[name].default


def constant(path: str, name: str) -> int:
    """Return a constant of the Rust sources."""
    source = (ROOT / "rust" / path).read_text()
    (value,) = re.findall(rf"const {name}: usize = ([\d_ <]+);", source)
    factors = [int(part.replace("_", "")) for part in value.split("<<")]
    return factors[0] << factors[1] if len(factors) == 2 else factors[0]


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ("messages of the layer for a consumer or a socket", setting_of(InMemoryChannelLayer, "capacity")),
        (
            "their bytes, [behind the first](../how-to/slow-sockets.md)",
            setting_of(InMemoryChannelLayer, "capacity_bytes"),
        ),
        ("frames that are read ahead of a handler", READ_AHEAD),
        ("their bytes, but one frame always", AsyncConsumer.read_ahead_bytes),
        ("plain `send()` of a socket in an event loop", setting_of(RedisChannelLayer, "capacity_bytes")),
        ("a thread that sends to a client which does not read", outgoing.SEND_TIMEOUT),
        ("the body of an HTTP request", AsyncHttpConsumer.max_body_bytes),
        ("a handler whose client has gone", AsyncConsumer.grace_period),
        ("a handler", AsyncConsumer.handler_timeout),
        ("messages of a client in a time", AsyncConsumer.rate_limit),
        ("a silent client", AsyncConsumer.idle_timeout),
        ("the close of a client that does not read", CLOSE_TIMEOUT),
        ("messages of a mailbox", setting_of(RedisChannelLayer, "capacity")),
        ("their bytes, behind the first", setting_of(RedisChannelLayer, "capacity_bytes")),
        ("the age of a message", setting_of(RedisChannelLayer, "expiry")),
        ("the age of a membership, of a channel that nobody holds", setting_of(RedisChannelLayer, "group_expiry")),
        (
            "what is kept of all groups: the bytes of the messages, 64 for each, 256 for each group",
            setting_of(InMemoryChannelLayer, "history_bytes"),
        ),
        ("containers in each other, in a message", constant("core/src/redis/wire/msgpack.rs", "MAX_DEPTH")),
        ("containers of a message", constant("core/src/redis/wire/msgpack.rs", "MAX_CONTAINERS")),
        ("names", BaseChannelLayer.MAX_NAME_LENGTH),
        ("threads for sync handlers, in Django", THREADS),
        ("the msgpack of a message", setting_of(RedisChannelLayer, "max_message_bytes")),
        ("messages that wait for the server, of a layer", constant("core/src/redis/driver/backlog.rs", "MOST")),
        ("a call that waits for the server", setting_of(RedisChannelLayer, "send_timeout")),
        ("an attempt to connect", setting_of(RedisChannelLayer, "connect_timeout")),
        ("messages of a queue on the server", setting_of(RedisChannelLayer, "capacity")),
        ("messages of a queue that are taken at a time", constant("core/src/redis/driver/queues/taking.rs", "MOST")),
        ("senders and destinations whose numbers are watched", constant("core/src/redis/driver/mod.rs", "WATCHED")),
        (
            "changes of members that are kept during a reading",
            constant("core/src/redis/driver/members/mod.rs", "KEPT"),
        ),
        ("notices that wait for the log", constant("core/src/redis/notice.rs", "NOTICES")),
    ],
)
def test_a_default_on_the_page_is_that_of_the_code(row: str, value: float | None) -> None:
    assert default_of(row) == value


def test_sockets_have_the_defaults_of_consumers() -> None:
    assert (BaseSocketServer.read_ahead_bytes, BaseSocketServer.grace_period) == (
        AsyncConsumer.read_ahead_bytes,
        AsyncConsumer.grace_period,
    )
    assert backend.LIMIT == 16 << 20
    assert setting_of(InMemoryChannelLayer, "capacity_bytes") == setting_of(RedisChannelLayer, "capacity_bytes")


def test_who_reports_a_vulnerability_finds_the_page() -> None:
    assert "(docs/explanation/security.md)" in (ROOT / "SECURITY.md").read_text()
    assert "(docs/explanation/security.md)" in (ROOT / "README.md").read_text()
