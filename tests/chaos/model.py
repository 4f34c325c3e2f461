"""What must have come of what was sent: the model that a round is held against, and the sums over rounds."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

# The round, the kind, the sender, its number, and for a direct message the receiver.
Id = tuple[int, str, str, int, str]
GAP, BACK, LOST = "chaos.gap", "chaos.back", "chaos.lost"
COMPLETE, INCOMPLETE = "complete", "incomplete"
# Who comes and goes, and asks for what was missed: at the layer of the process, and at one that nobody else uses.
CLIENTS = ("near", "far")
# The heads of the table, and what of the sums is below them.
_COLUMNS = {
    "rounds": "rounds",
    "sent": "sent",
    "taken": "taken",
    "failed": "failed",
    "to deliver": "expected",
    "delivered": "delivered",
    "lost as promised": "told",
    "lost otherwise": "untold",
    "twice": "twice",
    "out of order": "disorder",
    "failed, but came": "ghosts",
}
_HISTORY_COLUMNS = {
    "rounds": "rounds",
    "taken": "taken",
    "due": "expected",
    "delivered": "delivered",
    "resumed": "resumed",
    "complete": "complete",
    "lost with the server": "told",
    "lost inside the window": "untold",
    "twice": "twice",
    "out of order": "disorder",
    "wrongly complete": "wrongly",
}


@dataclass
class Sums:
    """What came of a cause.

    Attributes:
        rounds: How often it was played.
        sent: Messages; those that the server took, and those that were given up with an error.
        expected: Deliveries that messages which were taken have to come to, one to each receiver.
        delivered: Those that they came to.
        told: Those that they did not, as docs/explanation/reliability.md has it: mostly with a word to the receiver.
        untold: Those that are missing against it.
        twice: Deliveries that came a second time.
        disorder: Messages that came behind a later one of the same sender, though they were taken.
        ghosts: Deliveries of messages that were given up, of which nobody can know whether they come.
        resumed: How often a client went on behind a position, and how often that was complete.
        wrongly: What is missing at a client that was told of nothing.
        back: The longest that a receiver had to wait for a message after the cause had ended, in seconds.
    """

    rounds: int = 0
    sent: int = 0
    taken: int = 0
    failed: int = 0
    expected: int = 0
    delivered: int = 0
    told: int = 0
    untold: int = 0
    twice: int = 0
    disorder: int = 0
    ghosts: int = 0
    resumed: int = 0
    complete: int = 0
    wrongly: int = 0
    back: float = 0.0

    @property
    def broken(self) -> bool:
        """Tell whether a promise was broken."""
        return bool(self.untold or self.twice or self.disorder or self.wrongly)

    def add(self, other: "Sums") -> None:
        """Add another round."""
        for name in vars(self):
            both = getattr(self, name), getattr(other, name)
            setattr(self, name, max(both) if name == "back" else sum(both))

    def row(self, name: str, *, history: bool = False) -> str:
        """Give its line of the table."""
        columns = _HISTORY_COLUMNS if history else _COLUMNS
        counts = [str(getattr(self, attribute)) for attribute in columns.values()]
        return f"| {name} | {' | '.join(counts)} | {self.back:.2f} s |"


def table(sums: dict[str, Sums], *, history: bool = False) -> str:
    """Give all of it as Markdown; with ``history`` what concerns that."""
    columns = _HISTORY_COLUMNS if history else _COLUMNS
    heads = ["cause", *columns, "back after"]
    lines = ["---", *("--:" for _ in heads[1:])]
    whole = Sums()
    for each in sums.values():
        whole.add(each)
    rows = [each.row(name, history=history) for name, each in sums.items()]
    head = [f"| {' | '.join(cells)} |" for cells in (heads, lines)]
    return "\n".join([*head, *rows, whole.row("**all**", history=history)])


@dataclass
class Receiver:
    """Who received: where, since when, and what, in order; a text is what the layer told."""

    worker: str
    name: str
    joined: float
    events: list[tuple[Id | str, float]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Give the kind of messages that come here."""
        return "group" if self.is_client or self.name.startswith("member") else self.name

    @property
    def is_client(self) -> bool:
        """Tell whether it comes and goes."""
        return self.name in CLIENTS


class Round:
    """The events of one round, and what follows from them.

    Args:
        number: Which one; what belongs to an earlier one was counted there.
        forgets: What a queue held may be lost, once some of it was.
        heals: The group keeps its history: nothing may be missing, even if told.
        empties: The server loses that, until the cause has ended.
    """

    def __init__(self, number: int, *, forgets: bool, heals: bool = False, empties: bool = False) -> None:
        self._number = number
        self._forgets = forgets
        self._heals = heals
        self._empties = empties
        self._outcomes: dict[Id, tuple[str, float]] = {}
        self._receivers: dict[tuple[str, str], Receiver] = {}

    def read(self, worker: str, joined: float, events: list[list[Any]], names: list[str]) -> None:
        """Take in what a process wrote down, and which receivers of it are there to the end."""
        for name in names:
            self._receivers[worker, name] = Receiver(worker, name, joined)
        for what, *rest, at in events:
            match what:
                case "sent":
                    outcome, (turn, *parts), began = rest
                    if turn == self._number:
                        self._outcomes[turn, *parts] = outcome, began
                case "got" | "told":
                    name, event = rest
                    known = self._receivers.setdefault((worker, name), Receiver(worker, name, float("inf")))
                    known.events.append((tuple(event) if what == "got" else event, at))

    def sums(self, ended: float, *kinds: str) -> Sums:
        """Count; ``ended`` is when the cause did. With ``kinds`` only messages of these."""
        of_all = not kinds
        sent = [outcome for message, (outcome, _) in self._outcomes.items() if of_all or message[1] in kinds]
        found, outcomes = Sums(rounds=1, sent=len(sent)), Counter(sent)
        found.taken, found.failed = outcomes["taken"], outcomes["failed"] + outcomes["full"]
        for receiver in self._receivers.values():
            if not of_all and receiver.kind not in kinds:
                continue
            if receiver.is_client:
                words = Counter(event for event, _ in receiver.events)
                found.complete += words[COMPLETE]
                found.resumed += words[COMPLETE] + words[INCOMPLETE]
            if receiver.kind != "queue":
                self._check(receiver, found, ended)
            self._check_order(receiver, found)
            later = [at for event, at in receiver.events if at > ended and not isinstance(event, str)]
            if later and receiver.joined < ended and receiver.kind != "queue":
                found.back = max(found.back, min(later) - ended)
        if of_all or "queue" in kinds:
            self._check_queue(found)
        return found

    def _mine(self, receiver: Receiver) -> list[tuple[int, Id]]:
        return [
            (place, event)
            for place, (event, _) in enumerate(receiver.events)
            if not isinstance(event, str) and event[0] == self._number
        ]

    def _check(self, receiver: Receiver, found: Sums, ended: float) -> None:
        """What is missing has to be told of: after what came before it."""
        got = Counter(event for _, event in self._mine(receiver))
        found.twice += sum(got.values()) - len(got)
        found.ghosts += sum(self._outcomes.get(event, ("", 0))[0] == "failed" for event in got)
        telling = (GAP, INCOMPLETE) if receiver.kind == "group" else (BACK,)
        told = max((place for place, (event, _) in enumerate(receiver.events) if event in telling), default=-1)
        heals = self._heals and receiver.kind == "group"
        before: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, event in self._mine(receiver):
            before[event[2]].append((event[3], place))
        for message, (outcome, began) in self._outcomes.items():
            due = message[1] == receiver.kind and message[4] in ("", receiver.worker) and began > receiver.joined
            if outcome != "taken" or not due:
                continue
            found.expected += 1
            if message in got:
                found.delivered += 1
                continue
            behind = max((place for number, place in before[message[2]] if number < message[3]), default=-1)
            # A client that comes back to another stream is told so, and goes on from there.
            may_miss = not heals or (self._empties and (began < ended or receiver.is_client))
            if told > behind and may_miss:
                found.told += 1
                continue
            if told < behind and receiver.is_client:
                found.wrongly += 1
            else:
                found.untold += 1
            print(f"missing: {message} at {receiver.worker} {receiver.name}")

    def _check_queue(self, found: Sums) -> None:
        got: Counter[Id] = Counter()
        for receiver in self._receivers.values():
            if receiver.kind == "queue":
                got.update(event for _, event in self._mine(receiver))
        found.twice += sum(got.values()) - len(got)
        found.ghosts += sum(self._outcomes.get(event, ("", 0))[0] == "failed" for event in got)
        for message, (outcome, _) in self._outcomes.items():
            if outcome != "taken" or message[1] != "queue":
                continue
            found.expected += 1
            if message in got:
                found.delivered += 1
            elif self._forgets:
                found.told += 1
            else:
                found.untold += 1
                print(f"not told of: {message} of the queue")

    def _check_order(self, receiver: Receiver, found: Sums) -> None:
        """Of one sender they come in order, but for those of which it was told that they may have failed."""
        last: dict[str, int] = {}
        for _, event in self._mine(receiver):
            sender, number = event[2:4]
            if self._outcomes.get(event, ("", 0))[0] == "failed":
                continue
            if number < last.get(sender, -1):
                found.disorder += 1
                print(f"out of order: {event} behind {last[sender]} at {receiver.worker} {receiver.name}")
            last[sender] = max(number, last.get(sender, -1))
