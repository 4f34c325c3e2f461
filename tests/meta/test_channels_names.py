"""Changing the root of an import is the whole migration: what Channels' modules and classes have, ours have too."""

import importlib
import inspect
import json
import subprocess
import sys
from functools import cache

import pytest

from headrace._layers.absent import ABSENT_OVER_REDIS
from headrace.layers import RedisChannelLayer

# Asks Channels what its modules have: of its own, or of asgiref; not the modules and the names of Python's library
# and of Django that it happens to import.
CHANNELS = """
import importlib, inspect, json, pkgutil, sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["channels", "django.contrib.auth", "django.contrib.contenttypes"])
django.setup()
import channels, channels_redis

def is_of_channels(name, thing):
    home = getattr(thing, "__module__", None)
    named = isinstance(home, str) and home.partition(".")[0] in ("channels", "channels_redis", "asgiref")
    return not name.startswith("_") and (named or isinstance(thing, str))

found = {}
for package in (channels, channels_redis):
    names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    for module in map(importlib.import_module, [package.__name__, *names]):
        things = {name: thing for name, thing in vars(module).items() if is_of_channels(name, thing)}
        found[module.__name__] = {
            name: [each for each in dir(thing) if not each.startswith("_")] if inspect.isclass(thing) else []
            for name, thing in things.items()
        }
json.dump(found, sys.stdout)
"""

# Asks channels_redis what its layers have, which is more than their classes have, and what they are made with.
CHANNELS_REDIS = """
import inspect, json, sys
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer

layers = [RedisChannelLayer(), RedisPubSubChannelLayer(), RedisPubSubLoopLayer(channel_layer=RedisPubSubChannelLayer())]
found = {
    type(layer).__name__: {
        "attributes": [name for name in {*dir(layer), *vars(layer)} if not name.startswith("_")],
        "arguments": [name for name in inspect.signature(type(layer)).parameters],
    }
    for layer in layers
}
json.dump(found, sys.stdout)
"""

# Modules that are not below our root, and why.
MODULES_LEFT = {
    "channels.apps": "an app of Django; ours is headrace.django",
    "channels.auth": "stays Channels'; it takes our consumers and routers",
    "channels.sessions": "stays Channels'; it takes our consumers and routers",
    "channels.management": "commands are found by Django; ours are those of the app headrace.django",
    "channels.testing.live": "stays Channels'; headrace.testing passes ChannelsLiveServerTestCase on",
    "channels_redis": "its layers are named in settings, which take ours; see docs/how-to/redis.md",
}
# Names that our modules lack, and why.
NAMES_LEFT = {
    "channels.testing.application.BaseApplicationCommunicator": "asgiref's, which ours is a subclass of",
    "channels.testing.application.no_op": "what Channels' communicator puts in the place of a function",
    "channels.worker.StatelessServer": "asgiref's, which our worker does not need",
}
# Attributes that our classes lack, and why.
ATTRIBUTES_LEFT: dict[str, str] = {}
# What our layer lacks of those of channels_redis, and why.
LAYERS_LEFT = {
    "args": "of a constructor that takes anything; ours names what it takes",
    "kwargs": "of a constructor that takes anything; ours names what it takes",
    "channel_layer": "of what a layer has for each event loop; ours is for all",
    "on_disconnect": "a setting, which no code asks the layer for",
    "on_reconnect": "a setting, which no code asks the layer for",
}
_WORKER = "of asgiref's StatelessServer, which our worker is not"
for _name in (
    *("application_checker", "application_checker_interval", "delete_application_instance"),
    *("delete_oldest_application_instance", "get_or_create_application_instance"),
):
    ATTRIBUTES_LEFT[f"channels.worker.Worker.{_name}"] = _WORKER


@cache
def channels() -> dict[str, dict[str, list[str]]]:
    """Return the names of each module of Channels, with those that each class has."""
    run = subprocess.run([sys.executable, "-c", CHANNELS], capture_output=True, check=True, timeout=50, text=True)
    found: dict[str, dict[str, list[str]]] = json.loads(run.stdout)
    return found


@cache
def channels_redis() -> dict[str, dict[str, list[str]]]:
    """Return what each layer of channels_redis has, and what it is made with."""
    run = subprocess.run([sys.executable, "-c", CHANNELS_REDIS], capture_output=True, check=True, timeout=50, text=True)
    found: dict[str, dict[str, list[str]]] = json.loads(run.stdout)
    return found


def ours(module: str) -> str:
    return f"headrace{module.removeprefix('channels')}"


def is_left(module: str) -> bool:
    return any(f"{module}.".startswith(f"{left}.") for left in MODULES_LEFT)


def lacking() -> tuple[set[str], set[str], set[str]]:
    """Name the modules, names and attributes that we lack."""
    modules, names, attributes = set(), set(), set()
    for module, things in channels().items():
        try:
            here = importlib.import_module(ours(module))
        except ModuleNotFoundError:
            modules.add(module)
            continue
        names |= {f"{module}.{name}" for name in things if not hasattr(here, name)}
        for name, has in things.items():
            thing = getattr(here, name, None)
            attributes |= {f"{module}.{name}.{each}" for each in has if thing and not hasattr(thing, each)}
    return modules, names, attributes


def test_every_module_of_channels_is_ours_or_left_for_a_reason() -> None:
    modules, _, _ = lacking()
    assert {module for module in modules if not is_left(module)} == set()


def test_every_name_of_a_module_is_ours_or_left_for_a_reason() -> None:
    _, names, _ = lacking()
    assert names == set(NAMES_LEFT)


def test_every_attribute_of_a_class_is_ours_or_left_for_a_reason() -> None:
    _, _, attributes = lacking()
    assert attributes == set(ATTRIBUTES_LEFT)


@pytest.mark.parametrize("module", MODULES_LEFT)
def test_what_is_left_is_there_in_channels(module: str) -> None:
    assert module in channels()


def test_every_name_of_a_layer_of_channels_redis_is_ours_or_says_what_to_use_or_is_left_for_a_reason() -> None:
    layer = RedisChannelLayer(hosts=["redis://localhost"])
    here = {*dir(layer), *ABSENT_OVER_REDIS}
    attributes = {name for has in channels_redis().values() for name in has["attributes"]}
    arguments = {name for has in channels_redis().values() for name in has["arguments"]}
    taken = set(inspect.signature(RedisChannelLayer).parameters)
    assert (attributes - here) | (arguments - taken) == set(LAYERS_LEFT)
