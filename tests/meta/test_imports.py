"""Imports point one way: from the programs to the package, to the layers, to the native core, to the exceptions.

STYLE A2.3: no cycles, and no import in a function to dodge one.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace

pytestmark = pytest.mark.one_python

PACKAGE = Path(headrace.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Each module imports from ranks below its own, or from those named beside it.
RANKS = [
    [
        *("headrace._forks", "headrace._json_text", "headrace._public", "headrace._settings", "headrace._signals"),
        *("headrace.exceptions", "headrace.typing"),
    ],
    ["headrace._drain"],
    ["headrace._core", "headrace._layers", "headrace._sockets", "headrace._websocket"],
    ["headrace._frames", "headrace._frames.extension", "headrace._layers.base"],
    [
        *("headrace._layers.absent", "headrace._layers.arguments", "headrace._layers.inbox"),
        *("headrace._layers.overrides", "headrace._layers.registry", "headrace._layers.siblings"),
        *("headrace._layers.histories", "headrace._layers.presences"),
        "headrace._layers.views",
    ],
    [
        "headrace._websocket.closing",
        "headrace._websocket.codes",
        "headrace._websocket.handshake",
        *("headrace._websocket.lane", "headrace._websocket.phase", "headrace._websocket.rate"),
        *("headrace._websocket.presence", "headrace._websocket.read_ahead", "headrace._websocket.resume"),
    ],
    ["headrace._websocket.expiry", "headrace._websocket.grace"],
    ["headrace._websocket.ending"],
    [
        *(
            "headrace._layers.close_message",
            "headrace._layers.group_names",
            "headrace._layers.lifespan",
            "headrace._layers.limits",
        ),
        "headrace._layers.mailbox",
    ],
    ["headrace._layers.receiving", "headrace._layers.sending", "headrace._layers.subscription"],
    ["headrace._layers.native"],
    ["headrace._layers.memory", "headrace._layers.watcher"],
    ["headrace._layers.options"],
    ["headrace._layers.tls", "headrace._layers.urls"],
    ["headrace._layers.hosts"],
    ["headrace._layers.redis_config", "headrace._layers.redis_stats"],
    ["headrace._layers.redis"],
    ["headrace.layers"],
    ["headrace.sync", "headrace._db", "headrace.utils", "headrace._paths"],
    ["headrace.db", "headrace.paths"],
    [
        *("headrace._dispatch.counters", "headrace._dispatch.failures", "headrace._dispatch.handlers"),
        *("headrace._dispatch.settings", "headrace._dispatch.side_by_side"),
    ],
    ["headrace._dispatch.incoming", "headrace._dispatch.threads"],
    ["headrace._dispatch.ending"],
    ["headrace._dispatch.session"],
    ["headrace._dispatch.closing"],
    ["headrace._dispatch.handling"],
    ["headrace._dispatch.delivery"],
    ["headrace._dispatch.dispatcher"],
    ["headrace._dispatch.resuming"],
    ["headrace._dispatch.present"],
    ["headrace._dispatch"],
    ["headrace._frames.uvicorn", "headrace.consumer", "headrace._sockets.keys"],
    ["headrace._frames.gunicorn", "headrace.uvicorn"],
    ["headrace.gunicorn"],
    [
        *("headrace._sockets.backend", "headrace._sockets.later", "headrace._sockets.loop"),
        *("headrace._sockets.nobody", "headrace._sockets.stats", "headrace._sockets.topics", "headrace._sockets.turns"),
    ],
    ["headrace._sockets.mailbox", "headrace._sockets.payload"],
    ["headrace._sockets.hooks", "headrace._sockets.hub"],
    ["headrace._sockets.broadcaster", "headrace._sockets.outgoing"],
    ["headrace._sockets.incoming"],
    ["headrace._sockets.closing", "headrace._sockets.hook_calls"],
    ["headrace._sockets.ending", "headrace._sockets.frames", "headrace._sockets.handshake"],
    ["headrace._sockets.presence"],
    ["headrace._sockets.delivery"],
    ["headrace._sockets.connection"],
    ["headrace._sockets.server"],
    ["headrace.sockets"],
    ["headrace.generic._groups", "headrace.generic._messages", "headrace.generic.http"],
    ["headrace.generic._connection"],
    ["headrace.generic.websocket"],
    ["headrace.generic"],
    ["headrace.routing", "headrace.middleware", "headrace.security.websocket", "headrace.worker"],
    ["headrace.security"],
    ["headrace.security.tokens"],
    ["headrace"],
    ["headrace.testing._drains", "headrace.testing._loops", "headrace.testing._faults"],
    ["headrace.testing.application"],
    ["headrace.testing.http", "headrace.testing.websocket"],
    ["headrace.testing._types"],
    ["headrace.testing"],
    ["headrace.testing._plugin"],
    [
        "headrace.django._checks",
        "headrace.django._dispatch",
        "headrace.django._handshake",
        "headrace.django.management.commands.runworker",
    ],
    ["headrace.django._patch", "headrace.django._user"],
    ["headrace.django._sign_out"],
    ["headrace.django.apps", "headrace.django.management.commands"],
    ["headrace.django.management"],
    ["headrace.django"],
    [
        "headrace._demo.board",
        "headrace._demo.clients",
        "headrace._demo.load",
        "headrace._demo.server",
    ],
    ["headrace._demo.frames"],
    ["headrace._demo.app"],
    ["headrace._demo", "headrace._demo.serve"],
    ["headrace._demo.fleet"],
    ["headrace._doctor.findings", "headrace._doctor.link", "headrace._doctor.probe"],
    ["headrace._doctor.needs", "headrace._doctor.server"],
    ["headrace._doctor.examination"],
    ["headrace._doctor"],
    ["headrace._doctor.project"],
    ["headrace.django.management.commands.headrace_doctor"],
    ["headrace._cli"],
    ["headrace.__main__"],
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
# Where the package stands on frameworks: imported only by the parts of the demo and the doctor that serve and connect.
FRAMEWORKS = {
    *("django", "rest_framework", "channels", "uvloop", "anyio", "uvicorn", "uvicorn_worker", "websockets", "redis"),
}
ALLOWED = {
    "headrace._demo.serve": {"uvicorn"},
    # A class of uvicorn's, which the user names to uvicorn.
    "headrace._frames.uvicorn": {"uvicorn", "websockets"},
    # A class of uvicorn-worker's, which the user names to gunicorn.
    "headrace._frames.gunicorn": {"uvicorn_worker"},
    "headrace._demo.clients": {"websockets"},
    "headrace._doctor.link": {"redis"},
    # Imported for a project of Django alone.
    "headrace._doctor.project": {"django"},
    # A Django app, imported by Django.
    "headrace.django.apps": {"django"},
    "headrace.django._checks": {"django"},
    "headrace.django._patch": {"channels", "django"},
    "headrace.django._sign_out": {"django"},
    "headrace.django._user": {"django"},
    "headrace.django.management.commands.headrace_doctor": {"django"},
    "headrace.django.management.commands.runworker": {"channels", "django"},
    # Guarded: the classes of Channels are taken where it is installed, which imports no Django.
    "headrace.exceptions": {"channels"},
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    """Name every module that is imported, anywhere in a source, but not for a type checker alone."""
    for node in run_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in submodules if name in RANK]
            yield from known or [node.module]


def run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a source without what stands under ``if TYPE_CHECKING``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from run_nodes(child)


def imports_when_loaded(tree: ast.Module) -> Iterator[str]:
    """Name the modules that are imported when the module is."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            yield node
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, part, []))

    for node in statements(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_has_its_rank(path: Path) -> None:
    assert name_of(path) in RANK


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_imports_only_from_below(path: Path) -> None:
    name = name_of(path)
    own = [imported for imported in imports(tree_of(path)) if imported.partition(".")[0] == "headrace"]
    assert [imported for imported in own if RANK[imported] >= RANK[name]] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_framework_is_imported_with_the_package(path: Path) -> None:
    name = name_of(path)
    imported = {each.partition(".")[0] for each in imports_when_loaded(tree_of(path))}
    assert imported & FRAMEWORKS <= ALLOWED.get(name, set())


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if name_of(path) not in ("headrace._cli", "headrace._layers.registry")],
    ids=name_of,
)
def test_no_function_of_the_package_imports_another_module_of_it(path: Path) -> None:
    """But the command line, which starts fast, and the registry, which imports what settings name."""
    tree = tree_of(path)
    at_load = sorted(name for name in imports_when_loaded(tree) if name.startswith("headrace"))
    assert sorted(name for name in imports(tree) if name.startswith("headrace")) == at_load


def test_the_ranks_name_every_module_and_no_other() -> None:
    assert set(RANK) - {"headrace._core"} == {name_of(path) for path in SOURCES}
