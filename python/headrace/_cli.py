"""The command `headrace`: one subcommand per function in `COMMANDS`.

A subcommand is a function that adds its own parser and names what it runs; what it needs
beyond the standard library it imports when it runs, so that one subcommand's missing extra
never keeps another from working.

Exit codes: 0 for success, 1 if what was asked for failed, 2 if it could not begin.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from headrace import __version__
from headrace._layers.arguments import meant

if TYPE_CHECKING:
    from headrace._demo.serve import Options

    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own) and return the exit code.

    Without any argument it prints the help.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser, subcommands = _parser()
    _complete(parser)
    if not arguments:
        parser.print_help()
        return 0
    name = arguments[0]
    if name not in subcommands.choices and not name.startswith("-"):
        return _refuse(f"there is no command {name!r}; {_meant(name, subcommands.choices)}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        command = next(word for word in arguments if word in subcommands.choices)
        known = set(re.findall(r"--[a-z-]+", subcommands.choices[command].format_help()))
        # What is no option may be a URL with a password, whose option was forgotten.
        shown = repr(unknown[0]) if unknown[0].startswith("-") else "without the name of an option"
        return _refuse(f"{command} takes no argument {shown}; {_meant(unknown[0], known)}")
    exit_code: int = options.run(options)
    return exit_code


def _parser() -> tuple[argparse.ArgumentParser, Subcommands]:
    parser = argparse.ArgumentParser(
        prog="headrace", description="A channel layer whose queues and fan-out run in Rust."
    )
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subcommands)
    return parser, subcommands


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what a word may be completed to, and end; argcomplete sets the variable."""
    if "_ARGCOMPLETE" in os.environ:
        import_module("argcomplete").autocomplete(parser)


def _meant(word: str, known: Iterable[str]) -> str:
    return meant(word, known) or "headrace --help lists what there is"


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
    parser.add_argument(
        "--layer",
        metavar="URL",
        help="a Redis or Valkey server, to serve by several processes; "
        "redis-server or valkey-server starts one, which the check restarts",
    )
    parser.add_argument("--workers", type=_between(1, 64), help="how many; with --layer 2, without it 1")
    parser.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> int:
    from headrace._demo import make_app
    from headrace._demo.app import HISTORY, PRESENCE
    from headrace.layers import InMemoryChannelLayer

    try:
        from headrace._demo.serve import CannotServe, Options, demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("uvicorn", "websockets"):
            raise
        return _refuse(f"cannot import {error.name}; the demo needs: pip install 'headrace[demo]'")
    chosen = Options(host=options.host, port=options.port, once=options.once, clients=options.clients)
    if options.layer is not None:
        return _run_fleet(options.layer, options.workers or 2, chosen)
    if options.workers not in (None, 1):
        return _refuse(f"{options.workers} workers need a layer that connects them: --layer redis://localhost:6379")
    layer = InMemoryChannelLayer(history=HISTORY, presence=PRESENCE)
    try:
        return demo(make_app(layer), chosen, functools.partial(print, flush=True))
    except CannotServe as error:
        return _refuse(str(error))


def _run_fleet(where: str, workers: int, options: Options) -> int:
    from headrace._demo.fleet import demo_fleet
    from headrace._demo.serve import CannotServe
    from headrace._demo.server import PROGRAMS, CannotStart
    from headrace._layers.hosts import parse_hosts

    try:
        if where not in PROGRAMS:
            parse_hosts([where])
        return demo_fleet(where, workers, options, functools.partial(print, flush=True))
    except (CannotServe, CannotStart, ValueError) as error:
        return _refuse(str(error))


def _add_worker(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser(
        "worker",
        help="run an application on the messages of channels",
        description="Run an ASGI application on the messages of channels, until SIGINT or SIGTERM; then let running "
        "handlers finish. Django is set up first if DJANGO_SETTINGS_MODULE is set.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("app", metavar="APP", help="the application, as module:attribute")
    parser.add_argument("channels", metavar="channel", nargs="+", help="name of a channel to listen on")
    parser.add_argument("--layer", default="default", help="alias of the channel layer")
    parser.add_argument(
        "--grace",
        type=_between(0, 86400),
        default=10,
        help="seconds that running handlers may go on after the signal",
    )
    parser.set_defaults(run=_run_worker)


def _run_worker(options: argparse.Namespace) -> int:
    from headrace import get_channel_layer
    from headrace.worker import Worker

    sys.path.insert(0, "")
    try:
        _set_up_django()
        application = _load(options.app)
        layer = get_channel_layer(options.layer)
    except _CannotLoad as error:
        return _refuse(str(error))
    except Exception:
        # Of the user's code: the place is what helps.
        traceback.print_exc()
        return _refuse(f"cannot load {options.app!r}")
    if layer is None:
        return _refuse(f"no channel layer {options.layer!r} is configured; add it to CHANNEL_LAYERS or configure()")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _warn_of_own_layer(options.layer, layer)
    try:
        worker = Worker(application, options.channels, layer, grace=options.grace)
        print(f"headrace worker on {', '.join(worker.channels)}", flush=True)
        worker.run()
    except Exception:
        logging.getLogger("headrace.worker").exception("the worker has ended")
        return 1
    return 0


def _add_doctor(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser(
        "doctor",
        help="look at the servers of the channel layers",
        description="Connect to the servers of a Django project's CHANNEL_LAYERS, or of --hosts, and say what they "
        "are, what is missing there, and what would go wrong. Exit 0 if nothing would fail, 1 if something would, "
        "2 if it could not begin. Passwords are not printed.",
    )
    parser.add_argument("--settings", metavar="MODULE", help="Django's settings; by default DJANGO_SETTINGS_MODULE's")
    parser.add_argument("--hosts", metavar="URL", nargs="+", help="look at these servers, and at no project")
    parser.add_argument("--prefix", help="with --hosts: the prefix of the layer; by default asgi")
    parser.add_argument("--topology", help="with --hosts: the topology of the layer; by default auto")
    parser.add_argument("--json", action="store_true", help="print what is found as one JSON object, for a program")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(options: argparse.Namespace) -> int:
    layer = {name: getattr(options, name) for name in ("prefix", "topology") if getattr(options, name) is not None}
    if options.hosts and options.settings:
        return _refuse("give either --hosts or --settings")
    if layer and not options.hosts:
        return _refuse(f"--{next(iter(layer))} goes with --hosts; a project says it in its settings")
    try:
        from headrace._doctor import Section, Target, diagnose
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        return _refuse(
            "cannot import redis; the doctor needs the extra headrace[doctor]: pip install 'headrace[doctor]'"
        )
    targets: Iterable[Section | Target]
    try:
        if options.hosts:
            from headrace._layers.redis_config import redis_config

            arguments = {"hosts": options.hosts, **layer}
            targets = [Target("layer of --hosts", redis_config(**arguments), arguments)]
        else:
            from headrace._doctor.project import targets as targets_of

            targets = targets_of(_settings_of(options.settings))
        return diagnose(targets, functools.partial(print, flush=True), as_json=options.json)
    except (_CannotLoad, ValueError) as error:
        return _refuse(str(error))


def _settings_of(module: str | None) -> Any:
    """Import Django's settings; the text of what goes wrong may not show where, because a line may have a password."""
    from headrace._settings import installed

    if module is not None:
        os.environ["DJANGO_SETTINGS_MODULE"] = module
    name = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not name:
        raise _CannotLoad("nothing to look at: give --settings MODULE, set DJANGO_SETTINGS_MODULE, or give --hosts URL")
    if not installed("django"):
        raise _CannotLoad("Django is not installed here, so its settings cannot be read; give --hosts URL")
    sys.path.insert(0, "")
    try:
        settings = import_module("django.conf").settings
        hasattr(settings, "CHANNEL_LAYERS")
    except Exception as error:  # settings may do anything
        raise _CannotLoad(f"cannot read the settings {name!r}: {type(error).__name__}: {error}") from None
    return settings


class _CannotLoad(Exception):
    """What the command line names is not there."""


def _set_up_django() -> None:
    """Set Django up if it is in use, as a server's ASGI module would."""
    from headrace._settings import django_settings

    if django_settings() is not None:
        import_module("django").setup()


def _load(name: str) -> Any:
    """Import what ``module:attribute`` names."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise _CannotLoad(f"APP must be module:attribute, got {name!r}")
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        # One of its own that is missing is told with the place.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise _CannotLoad(
            f"cannot import {error.name!r} for APP {name!r}, looked in the current directory too"
        ) from None
    try:
        return attrgetter(attribute)(imported)
    except AttributeError:
        raise _CannotLoad(f"module {module!r} has no attribute {attribute!r}") from None


def _warn_of_own_layer(alias: str, layer: object) -> None:
    from headrace.layers import InMemoryChannelLayer

    if isinstance(layer, InMemoryChannelLayer) or type(layer).__module__ == "channels.layers":
        logging.getLogger("headrace.worker").warning(
            "channel layer %r lives in this process alone: what other processes send does not reach this worker", alias
        )


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


COMMANDS: tuple[Callable[[Subcommands], None], ...] = (_add_demo, _add_worker, _add_doctor)
