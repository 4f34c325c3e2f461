"""Whether this process uses Django, found out without importing Django."""

import os
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["django_settings", "installed"]


def django_settings() -> Any:
    """Return Django's settings if Django is in use, else None.

    Django is in use if its settings are configured, or if ``DJANGO_SETTINGS_MODULE`` names them and Django is
    installed.
    """
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is not None and settings.configured:
        return settings
    if os.environ.get("DJANGO_SETTINGS_MODULE") and installed("django"):
        return import_module("django.conf").settings
    return None


@cache
def installed(module: str) -> bool:
    """Tell whether a module can be found; its parents are imported, it is not."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is missing, or None stands in sys.modules
        return False
