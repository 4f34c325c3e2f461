"""What all tests share: the fixtures that start servers, the event loops that they run on, and how deep they go."""

import gc
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import settings
from tests.support import profiles
from tests.support.loops import EAGER, USUAL, NewLoop, loops_of
from tests.support.patience import wait_patiently

pytest_plugins = ["tests.support.fixtures", "tests.support.groups"]

# Where the loop of the test is not the one that serves: the servers of tests/servers have eager tasks of their own.
ON_ASYNCIO_ALONE = (
    *("browser", "channels_project", "chaos", "consumer_forms", "django_app", "examples", "meta", "servers", "support"),
)

EAGER_SECONDS = 120
"""A task that nobody wakes again hangs: its test is ended long before the others' limit."""

DEEP_SECONDS = 3600
"""The limit of a test that makes up thousands of examples."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of ``make test-deep``."""
    parser.addoption(
        "--deep",
        action="store_true",
        help="make up thousands of examples at random, and run what needs a server with each kind of server",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the examples of Hypothesis, before its own option has its say."""
    settings.load_profile(profiles.DEEP if config.getoption("--deep", False) else profiles.GATE)


def pytest_sessionstart() -> None:
    """Have communicators wait as long as the tests do."""
    wait_patiently()


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, NewLoop]:
    """Run every asynchronous test with eager tasks too, as far as the interpreter has them."""
    folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    return {"asyncio": USUAL["asyncio"]} if folder in ON_ASYNCIO_ALONE else loops_of(item, USUAL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for ``--deep``, and set limits."""
    if not config.getoption("--deep", False):
        left_out = [item for item in items if item.get_closest_marker("deep")]
        items[:] = [item for item in items if not item.get_closest_marker("deep")]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        loop = getattr(item, "callspec", None) and item.callspec.params.get("_asyncio_loop_factory")  # type: ignore[attr-defined]
        if loop is not None and loop is USUAL.get(EAGER):
            item.add_marker(pytest.mark.timeout(EAGER_SECONDS))
        elif config.getoption("--deep", False) and item.get_closest_marker("hypothesis"):
            item.add_marker(pytest.mark.timeout(DEEP_SECONDS))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Have the collector pass by what is there before the first test: modules, and thousands of tests.

    Many tests call it, to see that nothing is left of what they did themselves.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def little_to_collect() -> None:
    """Have the collector pass by what was there before the test, which takes most of its time.

    That is not taken back: each later test that calls the collector would walk it, with all the tests that there are.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Make millions of containers without having the collector look at them again and again."""
    gc.disable()
    yield
    gc.enable()
