"""The same consumers on Channels' classes and on ours: the same messages, errors and texts.

``same_source.py`` runs them, in an interpreter of its own for each pair of classes and layer, because Channels' classes
need Django's settings.
"""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "same_source.py"
LAYERS = ("channels", "headrace", "none")

# Cases that have to do with a layer.
NEED_A_LAYER = ("groups[", "messages_of_the_layer", "client_before_layer")


@cache
def outcomes(classes: str, layer: str) -> dict[str, list[dict[str, Any]]]:
    """Run all cases on the classes of a package and the layer of a package."""
    command = [sys.executable, "-W", "error", str(PROGRAM), classes, layer]
    process = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    if process.returncode:
        pytest.fail(f"the program failed:\n{process.stderr}")
    found: dict[str, list[dict[str, Any]]] = json.loads(process.stdout)
    return found


def cases() -> list[str]:
    """List the cases, without running the program."""
    names = []
    for node in ast.parse(PROGRAM.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AsyncFunctionDef):
            decorated = any(isinstance(each, ast.Name) and each.id == "case" for each in node.decorator_list)
            names += [f"{node.name}[{kind}]" for kind in ("async", "sync")] if decorated else [node.name]
    return names


@pytest.mark.parametrize(
    ("case", "layer"),
    [(case, layer) for case in cases() for layer in LAYERS if layer != "none" or not case.startswith(NEED_A_LAYER)],
)
def test_the_same_source_gives_the_same(case: str, layer: str) -> None:
    theirs, ours = outcomes("channels", layer), outcomes("headrace", layer)
    assert len(ours[case]) == len(theirs[case])
    for number, (our, their) in enumerate(zip(ours[case], theirs[case], strict=True)):
        assert our["sent"] == their["sent"], number
        assert our["kind"] == their["kind"], number
        # Ours may say more.
        assert our["text"].startswith(their["text"]), number
        assert our["log"] == their["log"], number


def test_the_cases_are_not_empty() -> None:
    found = outcomes("channels", "channels")
    assert sorted(found) == sorted(cases())
    assert sum(len(results) for results in found.values()) > 100
    assert any("websocket.accept" in result["sent"] for results in found.values() for result in results)
    assert not [name for name, results in found.items() for result in results if "still running" in result["text"]]
