"""The Python of the README and of docs/, each block as a module that a type checker reads.

What a block uses and does not define is imported from an earlier block of its page, as a reader has it, or from
headrace or a module of that name. A block that awaits at its top level becomes a coroutine function.
"""

import ast
import builtins
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import headrace

__all__ = ["Block", "blocks_of", "write_blocks"]

ROOT = Path(__file__).parents[2]
# The tutorials are programs of several files, which tests/examples/test_tutorials.py runs.
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "tutorials"),
    *sorted((ROOT / "examples").rglob("*.md")),
]

# What pages call the first block of a page, which is saved as a file.
FILES = {"chat": "docs/how-to/without-django.md"}
# What a page leaves to its reader.
OWN = {
    "Message": "from typing import Any\nMessage: Any",
    "layer": "import headrace.typing\nlayer: headrace.typing.ChannelLayer",
    "users_by_key": "async def users_by_key(key: str) -> object: ...",
}

_BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


@dataclass
class Block:
    """A block of a page.

    Attributes:
        place: The page and the line that the block begins at.
        module: The name of its module.
        source: What stands there.
        defines: The names that it binds at its top level.
        imports: How it imports those that it does.
        uses: The names that it does not bind itself.
    """

    place: str
    module: str
    source: str
    defines: set[str] = field(init=False)
    imports: dict[str, str] = field(init=False)
    uses: set[str] = field(init=False)

    def __post_init__(self) -> None:
        tree = self.tree()
        bound = {name for statement in tree.body for name in _bound_by(statement)}
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        local |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        local |= {node.name for node in ast.walk(tree) if isinstance(node, ast.MatchAs) and node.name}
        self.defines = bound
        imports = [statement for statement in tree.body if isinstance(statement, ast.Import | ast.ImportFrom)]
        self.imports = {name: ast.unparse(statement) for statement in imports for name in _bound_by(statement)}
        self.uses = used - bound - local - {*dir(builtins), "__file__"}

    def tree(self) -> ast.Module:
        """Parse the block."""
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
        tree = compile(self.source, self.place, "exec", flags=flags)
        assert isinstance(tree, ast.Module)
        return tree

    def awaits(self) -> bool:
        """Tell whether it awaits outside of any function."""
        outside = [statement for statement in self.tree().body if not isinstance(statement, ast.ClassDef)]
        inside = (ast.AsyncFunctionDef, ast.FunctionDef)
        return any(
            isinstance(node, ast.Await)
            for statement in outside
            if not isinstance(statement, inside)
            for node in ast.walk(statement)
        )


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    name = str(page.relative_to(ROOT))
    text = page.read_text()
    blocks = []
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        module = f"{re.sub(r'[^a-z]', '_', name.removesuffix('.md').lower())}_{line}"
        blocks.append(Block(f"{name}:{line}", module, textwrap.dedent(found[2])))
    return blocks


def write_blocks(folder: Path) -> list[Path]:
    """Write each block into a folder; return the files."""
    written = []
    for name, home in FILES.items():
        (folder / f"{name}.py").write_text(blocks_of(ROOT / home)[0].source)
    for page in PAGES:
        before: list[Block] = []
        for block in blocks_of(page):
            file = folder / f"{block.module}.py"
            file.write_text(_module_of(block, before))
            written.append(file)
            before.append(block)
    return written


def _module_of(block: Block, before: list[Block]) -> str:
    prelude = [line for name in sorted(block.uses) for line in _import_of(name, block, before)]
    source = block.source
    if block.awaits():
        source = f"async def block() -> None:\n{textwrap.indent(source, '    ')}"
    return "\n".join([f"# {block.place}", *prelude, source])


def _import_of(name: str, block: Block, before: list[Block]) -> Iterator[str]:
    """Say where a name comes from."""
    if home := next((earlier for earlier in reversed(before) if name in earlier.defines), None):
        yield home.imports.get(name, f"from {home.module} import {name}")
    elif name in headrace.__all__:
        yield f"from headrace import {name}"
    elif name in sys.stdlib_module_names:
        yield f"import {name}"
    elif name in OWN:
        yield OWN[name]
    else:
        raise NameError(f"{block.place} uses {name}, which no block before it defines; add it to the block, or to OWN")


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in statement.names)
    else:
        yield from (
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
