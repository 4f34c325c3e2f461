"""Which tests one process of pytest-xdist runs all of, so that what they share is made once: a plugin of pytest.

``--dist loadgroup`` does so for the marks ``xdist_group``, but pytest-xdist 3.8 writes the group into an attribute that
pytest 9.2 does not have any more: each process made all of it for itself. Here the groups go by a file instead.
"""

import json
import tempfile
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import pytest

# Several servers at once, which take a second or more to start and to heal.
_SHARED = ("redis_cluster", "redis_sentinels", "redis_serverless")
_MARK = "xdist_group"
# Among what a process is told by the one that started it: where it writes the groups.
_FILE = "headrace_groups"


def one_process_each(what: str, values: Iterable[Any], *, deep: Container[Any] = ()) -> list[Any]:
    """Give the parameters of a fixture that lasts for many tests: those with the same value are run by one process.

    Args:
        what: What is made for each value.
        values: Texts, or tuples of them.
        deep: Those that only ``make test-deep`` runs.
    """
    return [
        pytest.param(
            value,
            id=name,
            marks=[pytest.mark.xdist_group(f"{what}-{name}"), *([pytest.mark.deep] if value in deep else [])],
        )
        for value in values
        for name in [value if isinstance(value, str) else "-".join(value)]
    ]


def group_of(item: pytest.Item) -> str | None:
    """Give the group of a test: that of its mark, or the fixture of several servers that it asks for."""
    if (mark := item.get_closest_marker(_MARK)) is not None:
        return str(mark.args[0])
    return next((name for name in _SHARED if name in getattr(item, "fixturenames", ())), None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with those that share something, and tell who shares what."""
    items.sort(key=lambda item: group_of(item) is None)
    told = getattr(config, "workerinput", {})
    # All processes collect the same.
    if told.get("workerid") == "gw0" and _FILE in told:
        groups = {item.nodeid: group for item in items if (group := group_of(item)) is not None}
        Path(told[_FILE]).write_text(json.dumps(groups), encoding="utf-8")


class _Groups:
    """What the process that starts the others knows of the groups."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-groups-")
        self._file = Path(self._folder.name) / "groups.json"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[_FILE] = str(self._file)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        if config.getoption("dist") != "loadgroup":
            return None
        from xdist.scheduler import LoadGroupScheduling

        file = self._file

        class Scheduling(LoadGroupScheduling):  # type: ignore[misc]  # without types
            groups: dict[str, str] | None = None

            def _split_scope(self, nodeid: str) -> str:
                # It is asked when all processes have collected.
                if self.groups is None:
                    self.groups = json.loads(file.read_text(encoding="utf-8"))
                return self.groups.get(nodeid) or nodeid

        return Scheduling(config, log)

    def pytest_unconfigure(self) -> None:
        self._folder.cleanup()


def pytest_configure(config: pytest.Config) -> None:
    """Have the tests dealt out by their groups."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Groups(), "headrace-groups")
