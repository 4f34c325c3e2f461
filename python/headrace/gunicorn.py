"""A worker of gunicorn whose broadcasts cost less: see docs/how-to/faster-broadcasts.md."""

from headrace._frames.gunicorn import UvicornWorker
from headrace._public import name_publicly as _name_publicly

__all__ = ["UvicornWorker"]

_name_publicly(globals())
