"""The chaos suite itself: its model finds what it is there to find, and a round can be played."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.causes import CAUSES
from tests.chaos.model import BACK, COMPLETE, GAP, INCOMPLETE, Round, Sums, table
from tests.support.binaries import Binary

ROOT = Path(__file__).parents[2]
ALL = ["member", "direct", "queue"]


def played(events: list[list[Any]], *, forgets: bool = False) -> Sums:
    """Give what a round with one process came to; a time is added to each event."""
    model = Round(7, forgets=forgets)
    model.read("p1", 0.0, [[*event, float(at)] for at, event in enumerate(events, start=1)], ALL)
    return model.sums(0.0)


def sent(kind: str, *numbers: int, outcome: str = "taken") -> list[list[Any]]:
    return [["sent", outcome, [7, kind, "p1", number, "p1" if kind == "direct" else ""], 1.0] for number in numbers]


def got(kind: str, *numbers: int) -> list[list[Any]]:
    name = "member" if kind == "group" else kind
    return [["got", name, [7, kind, "p1", number, "p1" if kind == "direct" else ""]] for number in numbers]


@pytest.mark.parametrize("kind", ["group", "direct", "queue"])
class TestModel:
    def test_all_is_well(self, kind: str) -> None:
        sums = played([*sent(kind, 0, 1, 2), *got(kind, 0, 1, 2)])
        assert (sums.sent, sums.taken, sums.expected, sums.delivered, sums.broken) == (3, 3, 3, 3, False)

    def test_a_loss_is_found(self, kind: str) -> None:
        sums = played([*sent(kind, 0, 1, 2), *got(kind, 0, 2)])
        assert (sums.delivered, sums.told, sums.untold, sums.broken) == (2, 0, 1, True)

    def test_a_loss_of_the_last_is_found(self, kind: str) -> None:
        assert played([*sent(kind, 0, 1, 2), *got(kind, 0, 1)]).untold == 1

    def test_a_message_that_comes_twice_is_found(self, kind: str) -> None:
        sums = played([*sent(kind, 0, 1), *got(kind, 0, 1, 1)])
        assert (sums.twice, sums.broken) == (1, True)

    def test_a_message_out_of_order_is_found(self, kind: str) -> None:
        sums = played([*sent(kind, 0, 1, 2), *got(kind, 0, 2, 1)])
        assert (sums.disorder, sums.broken) == (1, True)

    def test_one_that_failed_may_come_or_not_and_late(self, kind: str) -> None:
        events = [*sent(kind, 0, 2), *sent(kind, 1, 3, outcome="failed"), *got(kind, 0, 2, 1)]
        sums = played(events)
        assert (sums.failed, sums.ghosts, sums.broken) == (2, 1, False)


class TestWords:
    @pytest.mark.parametrize(("kind", "word"), [("group", GAP), ("direct", BACK)])
    def test_a_loss_that_is_told_of_is_none_against_the_promise(self, kind: str, word: str) -> None:
        name = "member" if kind == "group" else kind
        for events in (
            [*got(kind, 0), ["told", name, word], *got(kind, 2)],
            [*got(kind, 0, 2), ["told", name, word]],
        ):
            sums = played([*sent(kind, 0, 1, 2), *events])
            assert (sums.told, sums.untold) == (1, 0)

    @pytest.mark.parametrize(("kind", "word"), [("group", GAP), ("direct", BACK)])
    def test_a_word_that_came_before_does_not_count(self, kind: str, word: str) -> None:
        name = "member" if kind == "group" else kind
        sums = played([*sent(kind, 0, 1, 2), ["told", name, word], *got(kind, 0, 2)])
        assert (sums.told, sums.untold) == (0, 1)

    def test_a_queue_may_lose_what_a_server_or_process_forgets(self) -> None:
        sums = played([*sent("queue", 0, 1), *got("queue", 1)], forgets=True)
        assert (sums.told, sums.untold) == (1, 0)

    def test_a_message_to_who_was_not_there_yet_is_not_expected(self) -> None:
        model = Round(7, forgets=False)
        model.read("p1", 2.0, [[*event, 3.0] for event in sent("group", 0)], ["member"])
        assert model.sums(0.0).expected == 0

    def test_the_table_has_a_line_for_each_cause_and_one_for_all(self) -> None:
        lines = table({"one": Sums(rounds=1, sent=2, back=0.5), "other": Sums(rounds=2, sent=3, back=0.1)}).splitlines()
        assert [line.count("|") for line in lines] == [14] * 5
        assert lines[-1].startswith("| **all** | 3 | 5 |")
        assert lines[-1].endswith("| 0.50 s |")


class TestClients:
    """Who comes and goes in a group that keeps its history."""

    def played(self, *events: list[Any], name: str = "near", empties: bool = False, ended: float = 0.0) -> Sums:
        model = Round(7, forgets=False, heals=True, empties=empties)
        model.read("p1", 0.0, [[*event, float(at)] for at, event in enumerate(events, start=1)], [name])
        return model.sums(ended, "group")

    def got(self, *numbers: int) -> list[list[Any]]:
        return [["got", "near", [7, "group", "p1", number, ""]] for number in numbers]

    def test_all_is_well(self) -> None:
        sums = self.played(
            *sent("group", 0, 1), *sent("queue", 5), *self.got(0), ["told", "near", COMPLETE], *self.got(1)
        )
        assert (sums.taken, sums.expected, sums.delivered, sums.resumed, sums.complete) == (2, 2, 2, 1, 1)
        assert not sums.broken

    @pytest.mark.parametrize("words", [[], [["told", "near", COMPLETE]]])
    def test_a_part_that_is_called_complete_is_found(self, words: list[list[Any]]) -> None:
        sums = self.played(*sent("group", 0, 1, 2), *self.got(0), *words, *self.got(2))
        assert (sums.wrongly, sums.untold, sums.broken) == (1, 0, True)

    @pytest.mark.parametrize("word", [INCOMPLETE, GAP])
    def test_a_loss_is_one_although_it_is_told(self, word: str) -> None:
        sums = self.played(*sent("group", 0, 1, 2), *self.got(0), ["told", "near", word], *self.got(2))
        assert (sums.wrongly, sums.untold, sums.told, sums.broken) == (0, 1, 0, True)

    def test_a_server_that_comes_back_empty_may_lose_what_it_had_and_nothing_later(self) -> None:
        for ended, told, untold in ((9.0, 1, 0), (0.5, 0, 1)):
            events = [*sent("group", 0, 1, 2), *got("group", 0), ["told", "member", GAP], *got("group", 2)]
            sums = self.played(*events, name="member", empties=True, ended=ended)
            assert (sums.told, sums.untold, sums.wrongly) == (told, untold, 0)

    def test_a_client_that_comes_back_to_another_stream_goes_on_from_there(self) -> None:
        events = [*sent("group", 0, 1, 2), *self.got(0), ["told", "near", INCOMPLETE], *self.got(2)]
        sums = self.played(*events, empties=True, ended=0.5)
        assert (sums.told, sums.untold, sums.wrongly) == (1, 0, 0)


@pytest.mark.parametrize("history", [False, True], ids=["without-history", "with-history"])
def test_the_page_has_the_table_of_all_causes(history: bool) -> None:
    page = (ROOT / "docs/explanation/reliability.md").read_text()
    head, line, *_ = table({}, history=history).splitlines()
    assert page.count(f"{head}\n{line}\n") == 1
    rows = page.split(f"{head}\n{line}\n")[1].split("\n\n")[0].splitlines()
    measured = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in rows}
    assert list(measured) == [*(cause.name for cause in CAUSES), "**all**"]
    heads = [cell.strip() for cell in head.split("|")[2:-1]]
    ours = {"lost otherwise", "lost inside the window", "twice", "out of order", "wrongly complete"}
    for name, cells in measured.items():
        faults = {title: cell for title, cell in zip(heads, cells, strict=True) if title in ours}
        assert set(faults.values()) == {"0"}, (name, faults)


@pytest.mark.parametrize("history", [[], ["--history"]], ids=["without-history", "with-history"])
def test_a_round_can_be_played(redis_binary: Binary, history: list[str]) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "0.1", "--seed", "1", "--server", redis_binary.name]
    command += ["--cause", "a process killed", *history]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 1, " in done.stdout
    assert "| **all** | 1 | " in done.stdout
