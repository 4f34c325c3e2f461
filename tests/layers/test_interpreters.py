"""A process has headrace in one interpreter; a second one is told so when it imports it."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
try:
    import _interpreters
    create, run = lambda: _interpreters.create("legacy"), _interpreters.exec
except ImportError:
    import _xxsubinterpreters as _interpreters
    create, run = lambda: _interpreters.create(isolated=False), _interpreters.run_string

USE = f'''
import sys
sys.path[:] = {sys.path!r}
try:
    import headrace
except ImportError as error:
    print(error, flush=True)
else:
    layer = headrace.InMemoryChannelLayer(capacity=1)
    layer.send_sync("a", {{}})
    try:
        layer.send_sync("a", {{}})
    except headrace.ChannelFull:
        print("works", flush=True)
'''

for who in sys.argv[1:]:
    exec(USE) if who == "main" else run(create(), USE)
"""
REFUSED = (
    "headrace works in one interpreter of a process, and another has loaded it already; a subinterpreter cannot have "
    "it too: run one interpreter in each process (mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
)


@pytest.mark.parametrize(
    ("order", "printed"),
    [
        ("main sub", ["works", REFUSED]),
        ("sub main", ["works", REFUSED]),
        ("sub sub", ["works", REFUSED]),
        ("main main", ["works", "works"]),
    ],
)
def test_the_first_interpreter_has_it_alone(order: str, printed: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, *order.split()]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert process.stdout.splitlines() == printed, process.stderr
