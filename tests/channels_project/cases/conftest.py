"""Runs only inside the interpreter that ../test_cases.py starts, where Django is set up."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
import pytest

django.setup()

import asgiref.testing  # noqa: E402  # after Django, as in a project
import channels.testing  # noqa: E402
from channels.layers import channel_layers, get_channel_layer  # noqa: E402  # needs the settings
from django.conf import settings  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402
from tests.support.patience import wait_patiently  # noqa: E402

from headrace.testing import ManualClock  # noqa: E402

wait_patiently(
    asgiref.testing.ApplicationCommunicator, channels.testing.HttpCommunicator, channels.testing.WebsocketCommunicator
)

MakeLayer = Callable[..., Any]
MakeTimedLayer = Callable[..., tuple[Any, Callable[[float], None]]]


@pytest.fixture(autouse=True)
def _fresh_layers() -> Iterator[None]:
    """Give each test layers of its own, since each has its own event loop."""
    channel_layers.backends = {}
    yield
    channel_layers.backends = {}


@pytest.fixture
def layer() -> Any:
    """Give the project's channel layer."""
    return get_channel_layer()


@pytest.fixture
def make_layer() -> MakeLayer:
    """Give the class of the project's channel layer, to be called with its configuration."""
    backend: MakeLayer = import_string(settings.CHANNEL_LAYERS["default"]["BACKEND"])
    return backend


@pytest.fixture
def make_timed_layer(make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch) -> MakeTimedLayer:
    """Make a layer whose time stands still, and a function that moves it on."""

    def make(**config: Any) -> tuple[Any, Callable[[float], None]]:
        if make_layer.__module__.startswith("headrace"):
            clock = ManualClock()
            return make_layer(**config, clock=clock), clock.advance
        now = [1000.0]
        monkeypatch.setattr("channels.layers.time", SimpleNamespace(time=lambda: now[0]))

        def advance(seconds: float) -> None:
            now[0] += seconds

        return make_layer(**config), advance

    return make


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Hand each outcome to ../test_cases.py."""
    if report.when == "call" or not report.passed:
        outcome = {"nodeid": report.nodeid, "passed": report.passed, "text": report.longreprtext}
        with Path(os.environ["CHAT_OUTCOMES"]).open("a", encoding="utf-8") as outcomes:
            outcomes.write(json.dumps(outcome) + "\n")
