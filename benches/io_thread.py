"""The thread that does the input and output of all layers of a process, as Linux knows it."""

import time
from pathlib import Path

_NAME = "headrace-io"


def processor_seconds() -> float:
    """Return the processor time of the thread, to the nanosecond.

    Raises:
        RuntimeError: There is no such thread, as before the first use of a layer over Redis.
    """
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == _NAME:
            # The number of a thread's clock, as in MAKE_THREAD_CPUCLOCK of Linux.
            return time.clock_gettime((~int(task.name) << 3) | 6)
    raise RuntimeError(f"there is no thread {_NAME}")
