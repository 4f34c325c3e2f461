"""What users set on a class has a text below it, which an editor shows where it is set."""

import ast
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import headrace

pytestmark = pytest.mark.one_python

PACKAGE = Path(headrace.__file__).parent
PUBLIC = {name: thing for name in headrace.__all__ if isinstance(thing := getattr(headrace, name), type)}
# What WebSocket consumers share is in a base of their own.
NAMES = {name for name, thing in PUBLIC.items() if not is_dataclass(thing)} | {"BaseWebsocketConsumer"}


def settings_of(definition: ast.ClassDef) -> dict[str, bool]:
    """Name the attributes that have a default, each with whether a text follows."""
    found = {}
    for statement, following in pairwise([*definition.body, ast.Pass()]):
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            found[ast.unparse(statement.target)] = is_text
    return {name: is_text for name, is_text in found.items() if not name.startswith("_")}


def definitions() -> list[ast.ClassDef]:
    trees = [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return [node for node in classes if node.name in NAMES]


def test_the_settings_that_are_looked_at_are_there() -> None:
    settings = {name for definition in definitions() for name in settings_of(definition)}
    assert {"overflow", "forward", "max_backlog", "concurrency", "groups", "thread_sensitive", "hosts"} <= settings


@pytest.mark.parametrize("definition", definitions(), ids=lambda definition: definition.name)
def test_every_setting_of_a_public_class_has_a_text(definition: ast.ClassDef) -> None:
    assert [name for name, has_text in settings_of(definition).items() if not has_text] == []
