"""Imports in the Rust crates point one way, and no file is too long to be read at once.

See docs/explanation/architecture.md.
"""

from pathlib import Path

import pytest
from tests.meta.rust_imports import Crate, Name, circles

pytestmark = pytest.mark.one_python

RUST = Path(__file__).parents[2] / "rust"
CRATES = {name: Crate(RUST / name / "src") for name in ("core", "py")}
# What is in a file or a folder imports from the same folder, and from the ranks above.
RANKS = {
    "core": [
        ["clock", "engine", "glob", "name", "overflow", "shrink", "sync", "websocket"],
        ["config", "error", "expiry", "message"],
        ["handoff", "history", "presence"],
        ["fanout"],
        ["memory"],
        ["redis::fault", "redis::meter", "redis::notice", "redis::plain", "redis::random"],
        ["redis::host"],
        ["redis::joins", "redis::ledger", "redis::wire"],
        ["redis::settings"],
        ["redis::link"],
        ["redis::runtime"],
        ["redis::driver"],
        ["redis::engine"],
        ["redis::groups", "redis::kept", "redis::readings", "redis::receiving", "redis::sending"],
        ["redis"],
        ["lib"],
    ],
    "py": [
        ["config", "first_use", "greenlets", "interpreters", "locks", "once", "position", "stub"],
        ["frames", "stats"],
        ["errors", "event_loop", "sleep"],
        ["arguments", "message", "park"],
        ["receiver", "reply"],
        ["inbox", "presence"],
        ["layer"],
        ["redis", "start"],
        ["lib"],
    ],
}
MOST_LINES = 500
# Longer files, each with the reason.
LONGER: dict[str, str] = {}


def named(module: Name) -> str:
    return "::".join(module) or "lib"


def ranks(crate: str) -> dict[str, int]:
    return {name: rank for rank, names in enumerate(RANKS[crate]) for name in names}


def room(name: str, crate: str) -> str:
    """Give the file or folder of the table that a module is in."""
    known = ranks(crate)
    while name not in known:
        name, mark, _ = name.rpartition("::")
        assert mark, "each file has a rank"
    return name


@pytest.mark.parametrize("crate", CRATES)
def test_no_files_import_each_other_in_a_circle(crate: str) -> None:
    found = circles(CRATES[crate].imports())
    assert [sorted(map(named, circle)) for circle in found] == []


@pytest.mark.parametrize("crate", CRATES)
def test_imports_point_one_way(crate: str) -> None:
    known = ranks(crate)
    wrong = [
        f"{importer} imports {imported}"
        for module, others in CRATES[crate].imports().items()
        for importer, imported in sorted((named(module), named(other)) for other in others)
        if (here := room(importer, crate)) != (there := room(imported, crate)) and known[here] <= known[there]
    ]
    assert wrong == []


def test_no_rust_file_is_longer_than_can_be_read_at_once() -> None:
    lengths = {str(path.relative_to(RUST)): len(path.read_text().splitlines()) for path in RUST.rglob("*.rs")}
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == set(LONGER)


def test_the_reader_of_imports_finds_them(tmp_path: Path) -> None:
    """The check fails for what it is there for: a circle, whatever the form of the path."""
    for name, text in {
        "lib.rs": "mod a;\nmod b;\nmod c;\nmod d;\npub use a::Thing;\n",
        "a.rs": "use crate::{b::{self, Other}, c::x as y};\npub struct Thing;\n",
        "b.rs": '// use crate::a::Thing;\npub struct Other;\nconst TEXT: &str = "crate::a::Thing";\n',
        "c.rs": "fn x() -> crate::Thing { crate::Thing }\n#[cfg(test)]\nmod tests { use crate::d::Deep; }\n",
        "d.rs": "mod inner { use super::super::b; }\npub(in crate::c) struct Deep;\n",
    }.items():
        (tmp_path / name).write_text(text)
    imports = Crate(tmp_path).imports()
    assert imports == {
        (): set(),
        ("a",): {("b",), ("c",)},
        ("b",): set(),
        ("c",): {("a",)},
        ("d",): {("b",)},
    }
    assert circles(imports) == [{("a",), ("c",)}]
