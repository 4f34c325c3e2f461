"""The stress suite itself: it plays, and it finds what it is there to find."""

import random
from typing import Any

import pytest
from tests.stress.play import QUEUES, Play


@pytest.mark.parametrize("seed", [1, 2])
def test_many_threads_use_a_layer_at_once(seed: int) -> None:
    play = Play(3, 8, seed)
    play.run()
    assert play.faults == []
    assert set(play.operations) == {"send", "receive", "run_loops", "join_and_leave", "look", "fork"}
    assert play.sent


def played(received: list[Any]) -> list[str]:
    play = Play(0, 0, 1)
    play.sent += [("sender", 1), ("sender", 2)]
    play.received += received
    play.run()
    return play.faults


def test_a_loss_is_found() -> None:
    assert played([("sender", 1)]) == ["lost: ('sender', 2)"]


def test_a_message_that_came_twice_is_found() -> None:
    twice = [("sender", 1), ("sender", 2), ("sender", 2)]
    assert played(twice) == ["received twice, or never sent: ('sender', 2)"]


def test_what_comes_out_of_order_is_found() -> None:
    play = Play(0, 0, 1)
    latest: dict[str, int] = {}
    for number in (1, 3, 2):
        play._check_order("member", latest, {"sender": "sender", "n": number})
    assert play.faults == ["member: 2 of sender behind 3"]


def test_an_exception_of_a_thread_is_found() -> None:
    def failing(_name: str, _chance: random.Random) -> None:
        raise ZeroDivisionError("of the test")

    play = Play(1, 1, 1)
    play._play(failing, "role", random.Random(1))
    assert play.faults == ["role: ZeroDivisionError('of the test')"]


def test_what_is_left_in_a_queue_is_taken_at_the_end() -> None:
    play = Play(0, 0, 1)
    play.layer.send_sync(QUEUES[0], {"sender": "sender", "n": 1})
    play.sent.append(("sender", 1))
    play.run()
    assert (play.received, play.faults) == ([("sender", 1)], [])
