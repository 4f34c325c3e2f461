"""What a server of this folder is told on its command line."""

import argparse
import os
from dataclasses import dataclass

__all__ = ["Arguments", "parse"]


@dataclass(frozen=True)
class Arguments:
    """Where and how to serve.

    Attributes:
        port: The port on 127.0.0.1.
        processor: The processor to run on.
        loop: ``asyncio`` or ``uvloop``.
        bytes: The bytes of the text.
        deflate: Whether to compress for clients that ask for it.
    """

    port: int
    processor: int
    loop: str
    bytes: int
    deflate: bool


def parse(about: str | None) -> Arguments:
    """Read the command line, and move to the processor.

    Args:
        about: What the program says of itself.
    """
    parser = argparse.ArgumentParser(description=about)
    for name, kind in (("port", int), ("processor", int), ("loop", str), ("bytes", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--deflate", action="store_true")
    arguments = Arguments(**vars(parser.parse_args()))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.processor})
    return arguments
