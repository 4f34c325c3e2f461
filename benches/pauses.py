"""How long does a broadcast to ten thousand WebSockets keep the loop of its server from its other tasks?

A uvicorn serves that many consumers, which forward one text; a task that is called in each turn of the loop, and does
nothing, notes its longest pause, from before the broadcast until all clients have the text. Beside it: the same on
uvicorn's own protocol, a loop that awaits each ``send``, and the task while nothing is sent. A pause is the processor
time of the loop's thread: what else runs on the machine does not count.

``python -m benches.pauses [--clients 10000] [--rounds 15]``
"""

import argparse
import statistics
from contextlib import ExitStack

from benches.compare.server import FORWARD, FRAMES_FORWARD, PLAIN, TICK, TOCK
from benches.compare.sockets import Case, Clients, Control, processors, serving

WAYS = {
    PLAIN: "a loop that awaits each send",
    FORWARD: "forward",
    FRAMES_FORWARD: "forward, headrace.uvicorn",
}


def longest(control: Control, name: str | None, clients: Clients | None, number: int) -> int:
    """Broadcast once, if there is a name, and return the longest pause in nanoseconds."""
    control.say(TICK)
    if name is not None and clients is not None:
        control.say(name)
        clients.read(number)
    control.clock()
    return control.ask(TOCK)


def measure(way: str, loop: str, number: int, rounds: int) -> tuple[list[int], list[int]]:
    """Measure one way; return its pauses, and those of a loop with nothing to do."""
    for_server, for_clients = processors()
    with serving(for_server, for_clients, Case(number, loop)) as port, ExitStack() as stack:
        clients = Clients(port, way, number, sleepless=False)
        stack.callback(clients.close)
        control = Control(port)
        stack.callback(control.close)
        longest(control, way, clients, number)
        idle = [longest(control, None, None, 0) for _ in range(rounds)]
        return [longest(control, way, clients, number) for _ in range(rounds)], idle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(f"{arguments.clients} clients; pauses in ms, of {arguments.rounds} broadcasts")
    for loop in ("asyncio", "uvloop"):
        for way, name in WAYS.items():
            pauses, idle = measure(way, loop, arguments.clients, arguments.rounds)
            texts = (
                f"median {statistics.median(each) / 1e6:.2f}, shortest {min(each) / 1e6:.2f}, "
                f"longest {max(each) / 1e6:.2f}"
                for each in (pauses, idle)
            )
            print(f"{loop}, {name}: {next(texts)} (nothing sent: {next(texts)})")


if __name__ == "__main__":
    main()
