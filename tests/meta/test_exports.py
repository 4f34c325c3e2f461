"""What a module says it exports is what it has, and all of it."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import headrace

PACKAGE = Path(headrace.__file__).parent
# Programs, and what Django and pytest load; nobody imports names from them.
PROGRAMS = (
    *("headrace.__main__", "headrace._cli", "headrace._core", "headrace._demo", "headrace._doctor"),
    *("headrace.django", "headrace.testing._plugin"),
)


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


# All that programs and other modules import from, and of these what users do.
ALL = [
    "headrace",
    *(
        module.name
        for module in pkgutil.walk_packages([str(PACKAGE)], "headrace.", onerror=lambda _: None)
        if not module.name.startswith(PROGRAMS)
    ),
]
MODULES = [name for name in ALL if is_public(name)]
# But what is for one server, and imported by it.
WITHOUT_FRAMEWORKS = [name for name in MODULES if name not in ("headrace.gunicorn", "headrace.uvicorn")]


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def defined_names(module: ModuleType) -> set[str]:
    """Name the public classes and functions that a module makes itself, as its source tells."""
    assert module.__file__ is not None
    return {
        node.name
        for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    }


def imported_names(module: ModuleType) -> set[str]:
    """Name what a package takes from its own modules."""
    assert module.__file__ is not None
    return {
        alias.asname or alias.name
        for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headrace")
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    }


@pytest.mark.parametrize("name", ALL)
def test_every_exported_name_is_there_once(name: str) -> None:
    module = load(name)
    exported = module.__all__
    assert len(exported) == len(set(exported))
    assert [item for item in exported if not hasattr(module, item)] == []


@pytest.mark.parametrize("name", ALL)
def test_every_public_class_and_function_is_exported(name: str) -> None:
    module = load(name)
    assert defined_names(module) - set(module.__all__) == set()


@pytest.mark.parametrize("name", ALL)
def test_every_exported_name_can_be_imported_with_a_star(name: str) -> None:
    found: dict[str, object] = {}
    exec(f"from {name} import *", found)
    assert set(load(name).__all__) <= set(found)


@pytest.mark.parametrize("name", [name for name in MODULES if (PACKAGE.parent / name.replace(".", "/")).is_dir()])
def test_a_package_exports_all_that_it_takes_from_its_modules(name: str) -> None:
    module = load(name)
    assert imported_names(module) == set(module.__all__) - {"__version__"}


def test_the_public_classes_say_where_they_are_imported_from() -> None:
    for name in ("headrace", "headrace.layers", "headrace.exceptions"):
        module = load(name)
        for exported in module.__all__:
            thing = getattr(module, exported)
            if inspect.isclass(thing):
                assert getattr(load(thing.__module__), thing.__name__) is thing, exported


def test_the_flat_names_are_those_of_the_modules() -> None:
    homes = [load(name) for name in MODULES[1:]]
    for name in set(headrace.__all__) - {"__version__"}:
        thing = getattr(headrace, name)
        here = [home for home in homes if name in home.__all__]
        # What no other public module has says that it is of the package itself.
        assert [getattr(home, name) for home in here] == [thing] * len(here), name
        assert here or thing.__module__ == "headrace", name


def test_the_version_is_the_one_of_the_distribution() -> None:
    from importlib.metadata import version

    assert headrace.__version__ == version("headrace")


def test_the_changelog_begins_with_the_version() -> None:
    """Whoever looks up what the version that is installed has changed finds it."""
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    first = re.search(r"^## (?:Unreleased \((.+)\)|(\S+) - \d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert first is not None
    assert changelog.index("\n## ") + 1 == first.start()
    assert headrace.__version__ in first.groups()


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"no module named {name}", name=name)

ABSENT = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())

import asyncio
import importlib

for name in sys.argv[2].split(","):
    importlib.import_module(name)

from headrace import ChannelFull, InMemoryChannelLayer, get_channel_layer

async def main():
    layer = get_channel_layer()
    assert isinstance(layer, InMemoryChannelLayer)
    task = asyncio.create_task(layer.receive("channel"))
    await layer.group_add("group", "channel")
    await layer.group_send("group", {"type": "hello"})
    assert await task == {"type": "hello"}
    small = InMemoryChannelLayer(capacity=1)
    await small.send("channel", {})
    try:
        await small.send("channel", {})
    except ChannelFull as full:
        assert type(full).__module__ == "headrace.exceptions"

asyncio.run(main())
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
print("works")
"""


def test_the_package_works_without_django_channels_and_uvloop() -> None:
    absent = ["django", "channels", "uvloop", "anyio", "uvicorn", "websockets"]
    command = [sys.executable, "-W", "error", "-c", WITHOUT, ",".join(absent), ",".join(WITHOUT_FRAMEWORKS)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (process.stderr, process.stdout) == ("", "works\n")


def test_importing_the_package_imports_no_framework() -> None:
    program = (
        f"import importlib, sys; [importlib.import_module(name) for name in {WITHOUT_FRAMEWORKS!r}]; "
        "print(sorted({'django', 'uvloop', 'anyio', 'uvicorn', 'websockets', 'headrace._demo', 'headrace._cli'} "
        "& set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (process.stderr, process.stdout) == ("", "[]\n")
