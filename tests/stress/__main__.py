"""Use one layer from many threads and loops at once, and count every message.

``python -m tests.stress --seconds 120 --threads 8`` is for interpreters without a global lock, where the threads run at
the same moment; it ends with status 1 if a message was lost, doubled or out of order.
"""

import argparse
import random
import sys

from tests.stress.play import Play

parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
parser.add_argument("--seconds", type=float, default=120)
parser.add_argument("--threads", type=int, default=8)
parser.add_argument("--seed", type=int, default=random.randrange(10**6))
options = parser.parse_args()

play = Play(options.seconds, options.threads, options.seed)
lock = "with a global lock" if getattr(sys, "_is_gil_enabled", lambda: True)() else "without a global lock"
print(
    f"Python {sys.version.split()[0]} {lock}, {options.threads} threads, {options.seconds:.0f} s, seed {options.seed}"
)
play.run()
print(f"rounds of each role: {dict(play.operations)}; messages of queues: {len(play.sent):,}")
for fault in play.faults:
    print(fault)
sys.exit(bool(play.faults))
