"""The command `headrace`: one subcommand per function in `COMMANDS`.

A subcommand is a function that adds its own parser and names what it runs; what it needs
beyond the standard library it imports when it runs, so that one subcommand's missing extra
never keeps another from working.

Exit codes: 0 for success, 1 if what was asked for failed, 2 if it could not begin.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own) and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="headrace", description="A channel layer whose queues and fan-out run in Rust."
    )
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subcommands)
    options = parser.parse_args(argv)
    exit_code: int = options.run(options)
    return exit_code


def _add_demo(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser(
        "demo",
        help="serve a chat on the layer",
        description="Serve a chat on the layer, after a check with a few WebSocket clients.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_between(0, 65535), default=8000, help="port to listen on; 0 for a free one")
    parser.add_argument(
        "--once",
        action="store_true",
        help="stop after the check; exit 0 if every client got every message, else 1; "
        "take a free port if the given one is taken",
    )
    parser.add_argument("--clients", type=_between(1, 100), default=5, help="WebSocket clients in the check")
    parser.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> int:
    from headrace import get_channel_layer
    from headrace.demo import Layer, make_app

    try:
        from headrace.demo.serve import CannotServe, Options, demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("uvicorn", "websockets"):
            raise
        return _refuse(f"cannot import {error.name}; the demo needs: pip install '.[demo]'")
    layer: object = get_channel_layer()
    if not isinstance(layer, Layer):
        return _refuse(f"the demo needs an in-process layer of headrace as default, got {layer!r}")
    chosen = Options(host=options.host, port=options.port, once=options.once, clients=options.clients)
    try:
        return demo(make_app(layer), chosen, functools.partial(print, flush=True))
    except CannotServe as error:
        return _refuse(str(error))


def _refuse(reason: str) -> int:
    print(f"headrace: {reason}", file=sys.stderr)
    return 2


def _between(low: int, high: int) -> Callable[[str], int]:
    """Return an argument type: a whole number from `low` to `high`."""

    def number(text: str) -> int:
        expected = f"expected a whole number from {low} to {high}, got {text!r}"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(expected) from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(expected)
        return value

    return number


COMMANDS: tuple[Callable[[Subcommands], None], ...] = (_add_demo,)
