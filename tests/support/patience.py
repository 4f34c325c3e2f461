"""How long communicators wait in a test that does not say it: a busy machine may take more than their second."""

import inspect
from typing import Any

from tests.support.waiting import SECONDS

import headrace.testing


def wait_patiently(*communicators: type[Any]) -> None:
    """Have headrace's communicators, and these, wait for what is to come as long as the other tests do.

    For what is not to come they wait as before.
    """
    ours = (
        headrace.testing.ApplicationCommunicator,
        headrace.testing.HttpCommunicator,
        headrace.testing.WebsocketCommunicator,
    )
    for communicator in (*ours, *communicators):
        for name, method in vars(communicator).items():
            if name != "receive_nothing" and inspect.isfunction(method) and method.__defaults__:
                parameters = inspect.signature(method).parameters.values()
                optional = [
                    each for each in parameters if each.default is not each.empty and each.kind != each.KEYWORD_ONLY
                ]
                method.__defaults__ = tuple(SECONDS if each.name == "timeout" else each.default for each in optional)
