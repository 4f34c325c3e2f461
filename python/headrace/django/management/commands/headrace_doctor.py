"""``manage.py headrace_doctor [--json]``."""

import argparse
import sys
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Look at the servers of the project's channel layers, as ``headrace doctor`` does with its settings."""

    help = (
        "Connects to the servers of CHANNEL_LAYERS and says what is missing there, and what would go wrong. "
        "Exits with 1 if something would fail."
    )
    # It tells them itself, and what is wrong elsewhere is no reason not to look.
    requires_system_checks: tuple[()] = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add ``--json``."""
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="Print what is found as one JSON object.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Look at everything.

        Raises:
            CommandError: redis-py is missing.
            SystemExit: Something would fail.
        """
        try:
            # Here, because it needs an extra.
            doctor, project = import_module("headrace._doctor"), import_module("headrace._doctor.project")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "redis":
                raise
            raise CommandError("cannot import redis; install the extra headrace[doctor]", returncode=2) from None
        if code := doctor.diagnose(project.targets(settings), self.stdout.write, as_json=options["json"]):
            sys.exit(code)
