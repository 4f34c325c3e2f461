"""``manage.py runworker [--layer ALIAS] channel [channel ...]``."""

import argparse
import logging
from typing import Any

from django.core.management import BaseCommand, CommandError

from headrace._layers.registry import DEFAULT_CHANNEL_LAYER
from headrace.layers import InMemoryChannelLayer, get_channel_layer
from headrace.routing import get_default_application
from headrace.typing import ChannelLayer
from headrace.worker import Worker

__all__ = ["Command"]

logger: logging.Logger = logging.getLogger("django.channels.worker")


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Run the project's ASGI application on the messages of channels, as Channels' command does.

    Differs from Channels: its worker is ``headrace.worker.Worker``, which a subclass may replace by ``worker_class``.
    """

    help = "Runs the ASGI application on the messages of channels, until it is interrupted."
    leave_locale_alone = True
    worker_class = Worker

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add ``--layer`` and the channels."""
        super().add_arguments(parser)
        parser.add_argument(
            "--layer", default=DEFAULT_CHANNEL_LAYER, help="Alias of the channel layer, if not the default."
        )
        parser.add_argument("channels", nargs="+", help="Channels to listen on.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the worker to its end.

        Raises:
            CommandError: The layer is not configured.
        """
        self.verbosity: int = options.get("verbosity", 1)
        self.channel_layer: ChannelLayer | None = get_channel_layer(options.get("layer", DEFAULT_CHANNEL_LAYER))
        if self.channel_layer is None:
            raise CommandError("You do not have any CHANNEL_LAYERS configured.")
        if isinstance(self.channel_layer, InMemoryChannelLayer):
            logger.warning(
                "this layer lives in this process alone: what other processes send does not reach the worker"
            )
        logger.info("Running worker for channels %s", options["channels"])
        worker = self.worker_class(
            application=get_default_application(), channels=options["channels"], channel_layer=self.channel_layer
        )
        worker.run()
