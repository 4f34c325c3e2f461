"""The paths of ``URLRouter``, by Django's matching rules and without Django.

``path()`` and ``re_path()`` match what their namesakes in ``django.urls`` match and capture what they capture. They
differ in this: a mistake in a route is told when it is written, not when it is first matched, and a view that leads to
a router, through middleware too, is matched as a prefix. ``URLRouter`` takes Django's own objects as well, and both
kinds in one list.
"""

from headrace._paths import include, path, re_path, register_converter
from headrace._public import name_publicly as _name_publicly
from headrace.exceptions import ImproperlyConfigured

__all__ = ["ImproperlyConfigured", "include", "path", "re_path", "register_converter"]

_name_publicly(globals())
