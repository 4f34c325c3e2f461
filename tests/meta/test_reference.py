"""The reference of docs/ names everything that is public: names, settings, options of commands, and checks."""

import argparse
import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from tests.meta.test_public import PUBLIC

import headrace
from headrace import AsyncConsumer, BaseSocketServer, Broadcaster, InMemoryChannelLayer, RedisChannelLayer, SyncConsumer
from headrace._cli import COMMANDS
from headrace._sockets.backend import SETTING
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer

pytestmark = pytest.mark.one_python

PACKAGE = Path(headrace.__file__).parent
REFERENCE = Path(__file__).parents[2] / "docs/reference"
PAGES = "\n".join(path.read_text() for path in sorted(REFERENCE.rglob("*.md")))
SETTINGS = (REFERENCE / "settings.md").read_text()
DOCUMENTED = set(re.findall(r"^\.\. auto(?!module)\w+:: (\S+)", PAGES, re.MULTILINE))
NAMED = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)", PAGES)}
FROM_ELSEWHERE = {"__version__", "DEFAULT_CHANNEL_LAYER", "SyncToAsync", "async_to_sync", "sync_to_async"}
# These are None, and said by the layer when it knows the others.
CHOSEN_LATER = {"ring", "wire", "allow_memory"}
OBJECTS = {"channel_layers", "sync_pool"}


@pytest.mark.parametrize("module", PUBLIC)
def test_each_public_name_is_documented_once_and_named_on_a_page(module: str) -> None:
    for name in PUBLIC[module].split():
        homes = {f"{other}.{name}" for other in PUBLIC} & DOCUMENTED
        assert len(homes) == (0 if name in FROM_ELSEWHERE | OBJECTS else 1), name
        assert homes or name in NAMED, name


def test_what_is_documented_is_public() -> None:
    assert {
        full for full in DOCUMENTED if full.rpartition(".")[2] not in PUBLIC[full.rpartition(".")[0]].split()
    } == set()


def test_each_check_is_listed() -> None:
    source = (PACKAGE / "django/_checks.py").read_text()
    checks = set(re.findall(r'id="(headrace\.\w+)"', source))
    assert checks
    assert set(re.findall(r"^\| `(headrace\.\w+)`", (REFERENCE / "checks.md").read_text(), re.MULTILINE)) == checks


def test_each_option_of_the_commands_is_listed() -> None:
    page = (REFERENCE / "cli.md").read_text()
    subcommands = argparse.ArgumentParser().add_subparsers()
    for add in COMMANDS:
        add(subcommands)
    for command, parser in subcommands.choices.items():
        section = page.partition(f"## `headrace {command}")[2].partition("\n## ")[0]
        options = {option for option in parser._option_string_actions if option.startswith("--")} - {"--help"}
        assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) == options, command


def settings_of(*classes: Any) -> set[str]:
    """Return what a class may set: its public attributes that are no methods."""
    names = {name for each in classes for parent in each.__mro__ for name in parent.__dict__}
    values = {name: inspect.getattr_static(classes[0], name, None) for name in names if not name.startswith("_")}
    return {name for name, value in values.items() if not (inspect.isroutine(value) or isinstance(value, property))}


@pytest.mark.parametrize("layer_class", [InMemoryChannelLayer, RedisChannelLayer])
def test_each_setting_of_a_layer_is_listed(layer_class: type) -> None:
    assert set(inspect.signature(layer_class).parameters) - in_tables() == set()


@pytest.mark.parametrize(
    "owner", [AsyncConsumer, SyncConsumer, AsyncWebsocketConsumer, AsyncHttpConsumer, BaseSocketServer]
)
def test_each_setting_of_a_class_is_listed(owner: type) -> None:
    assert settings_of(owner) - in_tables() == set()


def test_each_argument_of_socket_servers_and_broadcasters_is_listed() -> None:
    arguments = {*inspect.signature(BaseSocketServer).parameters, *inspect.signature(Broadcaster).parameters}
    assert arguments - {"scope", "receive", "send", "loop"} - in_tables() == set()


def test_each_setting_of_a_project_is_listed() -> None:
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    read = set(re.findall(r'getattr\((?:django_)?settings(?:\(\))?, "([A-Z_]+)"', sources))
    assert "HEADRACE_SYNC_THREADS" in read
    assert read | {SETTING} <= in_tables()


def defaults(heading: str) -> dict[str, object]:
    """Return the defaults that the page says below a heading, but for those that are words."""
    section = SETTINGS.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, object] = {}
    for names, cell in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+) \|", section, re.MULTILINE):
        if number := re.fullmatch(r"(\d+)( s| MiB)?", cell):
            value: object = int(number[1]) * (1 << 20 if number[2] == " MiB" else 1)
        elif cell.startswith("`") and cell.endswith("`"):
            value = ast.literal_eval(cell.strip("`"))
        else:
            continue
        found |= dict.fromkeys(re.findall(r"\w+", names), value)
    return found


@pytest.mark.parametrize(
    ("heading", "owners"),
    [
        ("Of every layer", [InMemoryChannelLayer, RedisChannelLayer]),
        ("Of a layer in memory", [InMemoryChannelLayer]),
        ("Of a layer over Redis", [RedisChannelLayer]),
        ("Of a consumer", [AsyncHttpConsumer]),
        ("Of a socket server", [BaseSocketServer]),
    ],
)
def test_a_default_on_the_page_is_that_of_the_code(heading: str, owners: list[Any]) -> None:
    said = defaults(heading)
    assert said
    for owner in owners:
        arguments = {name: each.default for name, each in inspect.signature(owner).parameters.items()}
        for name, value in said.items():
            default = arguments[name] if name in arguments else getattr(owner, name)
            if name in CHOSEN_LATER:
                assert default is None
            else:
                assert (list(default) if isinstance(default, tuple) else default) == value, name


def test_each_logger_is_listed() -> None:
    loggers = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        named = re.findall(r"getLogger\((__name__|\"[\w.]+\")\)", path.read_text())
        loggers |= {module if name == "__name__" else name.strip('"') for name in named}
    assert "headrace.redis" in loggers
    listed = re.findall(r"`([\w.]+)`", SETTINGS.partition("## Loggers")[2])
    assert {name for name in loggers if "._demo" not in name} - set(listed) == set()


def in_tables() -> set[str]:
    """Return the names in the first column of the tables of the page about settings."""
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", SETTINGS, re.MULTILINE)
    assert cells
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


def test_importing_is_enough_to_look_at_what_is_documented() -> None:
    for full in DOCUMENTED:
        module, _, name = full.rpartition(".")
        assert hasattr(importlib.import_module(module), name), full
