"""A plugin of pytest: what a project's tests leave to luck is not what a run of them is about."""

import gc
from typing import Any

FACTOR = 20


def pytest_sessionstart() -> None:
    """Have communicators wait longer: a machine with other work does in three seconds what a test allows one for."""
    from channels.testing import ApplicationCommunicator

    receive_output = ApplicationCommunicator.receive_output

    async def receive_patiently(self: Any, timeout: float | None = 1) -> Any:
        return await receive_output(self, None if timeout is None else FACTOR * timeout)

    ApplicationCommunicator.receive_output = receive_patiently


def pytest_runtest_setup() -> None:
    """Collect what the test before has left: a class that observes a model does so until it is collected."""
    gc.collect()
