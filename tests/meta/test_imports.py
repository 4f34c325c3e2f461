"""Imports point one way: from the programs to the package, to the layers, to the native core, to the exceptions.

STYLE A2.3: no cycles, and no import in a function to dodge one.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace

PACKAGE = Path(headrace.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Each module imports from ranks below its own, or from those named beside it.
RANKS = [
    ["headrace.exceptions", "headrace.json_text", "headrace.settings", "headrace.typing"],
    ["headrace._core"],
    [
        *("headrace.layers.absent", "headrace.layers.arguments", "headrace.layers.base", "headrace.layers.inbox"),
        *("headrace.layers.overrides", "headrace.layers.registry", "headrace.layers.siblings"),
        *("headrace.layers.subscription", "headrace.layers.views"),
    ],
    ["headrace.layers.limits", "headrace.layers.native"],
    ["headrace.layers.memory", "headrace.layers.watcher"],
    ["headrace.layers.options"],
    ["headrace.layers.tls", "headrace.layers.urls"],
    ["headrace.layers.hosts"],
    ["headrace.layers.redis_config"],
    ["headrace.layers.redis"],
    ["headrace.layers"],
    ["headrace.sync", "headrace.db", "headrace.utils", "headrace.paths"],
    [
        *("headrace.dispatch.counters", "headrace.dispatch.handlers", "headrace.dispatch.handshake"),
        "headrace.dispatch.settings",
    ],
    ["headrace.dispatch.attendant", "headrace.dispatch.intake", "headrace.dispatch.threads"],
    ["headrace.dispatch.session"],
    ["headrace.dispatch.life"],
    ["headrace.dispatch"],
    ["headrace.consumer", "headrace.sockets.keys"],
    [
        *("headrace.sockets.backend", "headrace.sockets.later", "headrace.sockets.loop"),
        *("headrace.sockets.nobody", "headrace.sockets.stats", "headrace.sockets.topics", "headrace.sockets.turns"),
    ],
    ["headrace.sockets.mailbox", "headrace.sockets.payload"],
    ["headrace.sockets.hooks", "headrace.sockets.hub"],
    ["headrace.sockets.broadcaster", "headrace.sockets.outgoing"],
    ["headrace.sockets.incoming"],
    ["headrace.sockets.connection"],
    ["headrace.sockets.server"],
    ["headrace.sockets"],
    ["headrace.generic.connection", "headrace.generic.http"],
    ["headrace.generic.websocket"],
    ["headrace.generic"],
    ["headrace.routing", "headrace.middleware", "headrace.security.websocket", "headrace.worker"],
    ["headrace.security"],
    ["headrace.sockets.middleware"],
    ["headrace"],
    ["headrace.testing.loops", "headrace.testing.faults"],
    ["headrace.testing.application"],
    ["headrace.testing.http", "headrace.testing.websocket"],
    ["headrace.testing"],
    ["headrace.testing.plugin"],
    [
        "headrace.django.checks",
        "headrace.django.dispatch",
        "headrace.django.handshake",
        "headrace.django.management.commands.runworker",
    ],
    ["headrace.django.patch"],
    ["headrace.django.apps", "headrace.django.management.commands"],
    ["headrace.django.management"],
    ["headrace.django"],
    ["headrace.demo.frames", "headrace.demo.clients", "headrace.demo.roster", "headrace.demo.server"],
    ["headrace.demo.app"],
    ["headrace.demo", "headrace.demo.serve"],
    ["headrace.demo.fleet"],
    ["headrace.doctor.findings", "headrace.doctor.link", "headrace.doctor.probe"],
    ["headrace.doctor.needs", "headrace.doctor.server"],
    ["headrace.doctor.examination"],
    ["headrace.doctor"],
    ["headrace.doctor.project"],
    ["headrace.django.management.commands.headrace_doctor"],
    ["headrace.cli"],
    ["headrace.__main__"],
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
# Where the package stands on frameworks: imported only by the parts of the demo and the doctor that serve and connect.
FRAMEWORKS = {"django", "rest_framework", "channels", "uvloop", "anyio", "uvicorn", "websockets", "redis"}
ALLOWED = {
    "headrace.demo.serve": {"uvicorn"},
    "headrace.demo.clients": {"websockets"},
    "headrace.doctor.link": {"redis"},
    # Imported for a project of Django alone.
    "headrace.doctor.project": {"django"},
    # A Django app, imported by Django.
    "headrace.django.apps": {"django"},
    "headrace.django.checks": {"django"},
    "headrace.django.patch": {"channels", "django"},
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


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith("headrace.layers")], ids=name_of)
def test_the_layers_know_nothing_of_the_programs(path: Path) -> None:
    known = [imported for imported in imports(tree_of(path)) if imported.startswith("headrace.")]
    assert [name for name in known if name.startswith(("headrace.demo", "headrace.cli"))] == []


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if name_of(path) not in ("headrace.cli", "headrace.layers.registry")],
    ids=name_of,
)
def test_no_function_of_the_package_imports_another_module_of_it(path: Path) -> None:
    """But the command line, which starts fast, and the registry, which imports what settings name."""
    tree = tree_of(path)
    at_load = sorted(name for name in imports_when_loaded(tree) if name.startswith("headrace"))
    assert sorted(name for name in imports(tree) if name.startswith("headrace")) == at_load


def test_the_ranks_name_every_module_and_no_other() -> None:
    assert set(RANK) - {"headrace._core"} == {name_of(path) for path in SOURCES}
