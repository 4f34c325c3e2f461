"""What does it cost that sender and receiver do not share a message?

Each work sends and receives without a loop, so what differs between the messages is the copying. The reference is
copy.deepcopy of the same message, which is what Channels' layer does.

Changed by the answer: immutable leaves are shared, and a flat dict is copied in one piece.
"""

import copy
from typing import Any

import pytest

from benches.python.timing import MESSAGE, TIMES, Stopwatch
from headrace.layers import InMemoryChannelLayer

NESTED = {"type": "chat.message", "user": {"name": "ada", "roles": ["admin", "author"]}, "text": "the quick brown fox"}
ROWS = {"type": "table.rows", "rows": [{"id": number, "x": 0.5, "y": 1.5, "name": "point"} for number in range(50)]}
MESSAGES: dict[str, dict[str, Any]] = {"flat": MESSAGE, "nested": NESTED, "50 rows": ROWS}


@pytest.mark.benchmark(group="send and receive, by message")
@pytest.mark.parametrize("shape", MESSAGES)
@pytest.mark.parametrize("strict", [False, True], ids=["any", "strict"])
def bench_message(stopwatch: Stopwatch, shape: str, strict: bool) -> None:
    layer, message = InMemoryChannelLayer(strict=strict), MESSAGES[shape]

    def work() -> None:
        for _ in TIMES:
            layer.send_sync("inbox", message)
            layer.receive_nowait("inbox")

    stopwatch.time(work)


@pytest.mark.benchmark(group="send and receive, by message")
def bench_message_that_only_deepcopy_can_copy(stopwatch: Stopwatch) -> None:
    layer, message = InMemoryChannelLayer(), {**MESSAGE, "tags": {"a", "b"}}

    def work() -> None:
        for _ in TIMES:
            layer.send_sync("inbox", message)
            layer.receive_nowait("inbox")

    stopwatch.time(work)


@pytest.mark.benchmark(group="copy.deepcopy alone, by message")
@pytest.mark.parametrize("shape", MESSAGES)
def bench_deepcopy(stopwatch: Stopwatch, shape: str) -> None:
    message = MESSAGES[shape]

    def work() -> None:
        for _ in TIMES:
            copy.deepcopy(message)

    stopwatch.time(work)
