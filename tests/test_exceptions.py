"""The exceptions are a tree; those that Channels has are Channels' own, and all are there without it."""

import os
import pickle
import subprocess
import sys
import textwrap
from typing import Any

import channels.exceptions
import pytest
from tests.support import programs

from headrace import InMemoryChannelLayer, _core, exceptions

SHARED = {
    "AcceptConnection": Exception,
    "ChannelFull": Exception,
    "DenyConnection": Exception,
    "InvalidChannelLayerError": ValueError,
    "MessageTooLarge": Exception,
    "RequestAborted": Exception,
    "RequestTimeout": exceptions.RequestAborted,
    "StopConsumer": Exception,
}
OWN: dict[str, Any] = {
    "ChannelEmpty": exceptions.LayerError,
    "ConnectionClosed": exceptions.HeadraceError,
    "ForeignChannel": (exceptions.HeadraceError, AssertionError, ValueError),
    "HeadraceError": Exception,
    "ImproperlyConfigured": (exceptions.HeadraceError, ValueError),
    "InvalidMessage": (exceptions.HeadraceError, AssertionError),
    "LayerClosed": (exceptions.LayerError, RuntimeError),
    "LayerError": exceptions.HeadraceError,
    "LayerUnavailable": (exceptions.LayerError, ConnectionError),
}


def run(code: str) -> None:
    """Run code in an interpreter of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_all_lists_every_exception() -> None:
    assert sorted(exceptions.__all__) == sorted(SHARED | OWN)


@pytest.mark.parametrize("name", SHARED)
def test_exceptions_that_channels_has_are_the_very_classes_of_channels(name: str) -> None:
    assert getattr(exceptions, name) is getattr(channels.exceptions, name)


@pytest.mark.parametrize(("name", "base"), (SHARED | OWN).items())
def test_exceptions_have_the_bases_of_the_tree(name: str, base: Any) -> None:
    assert getattr(exceptions, name).__bases__ == (base if isinstance(base, tuple) else (base,))


@pytest.mark.parametrize("name", SHARED)
def test_what_channels_has_is_not_below_the_root(name: str) -> None:
    assert not issubclass(getattr(exceptions, name), exceptions.HeadraceError)


async def test_what_a_layer_raises_is_caught_by_one_name() -> None:
    layer = InMemoryChannelLayer(capacity=1)
    with pytest.raises(exceptions.LayerError):
        layer.receive_nowait("channel")
    await layer.send("channel", {"type": "n"})
    with pytest.raises(exceptions.LayerError, match="channel") as full:
        await layer.send("channel", {"type": "n"})
    assert isinstance(full.value, channels.exceptions.ChannelFull)
    assert f"{type(full.value).__module__}.{type(full.value).__qualname__}" == "headrace.exceptions.ChannelFull"
    full.value.add_note("noted")
    copy = pickle.loads(pickle.dumps(full.value))
    assert copy.__notes__ == ["noted"]
    assert (type(copy), copy.args) == (type(full.value), ("channel",))
    await layer.close()
    with pytest.raises(exceptions.LayerError):
        await layer.send("channel", {"type": "n"})


@pytest.mark.parametrize("name", SHARED | OWN)
def test_the_tree_in_the_docstring_draws_every_exception(name: str) -> None:
    assert exceptions.__doc__ is not None
    assert f"── {name} " in exceptions.__doc__


@pytest.mark.parametrize("name", SHARED | OWN)
def test_exceptions_can_be_pickled(name: str) -> None:
    error = getattr(exceptions, name)("why")
    copy = pickle.loads(pickle.dumps(error))
    # Where redis-py is imported, a LayerUnavailable is of a class that is redis-py's too.
    assert type(copy) is type(error)
    assert isinstance(copy, getattr(exceptions, name))
    assert copy.args == ("why",)


WITH_REDIS_PY = """
    import copy, pickle, sys
    from headrace.exceptions import LayerUnavailable

    assert type(LayerUnavailable("why")) is LayerUnavailable
    assert "redis" not in sys.modules
    import redis

    for error in (made := LayerUnavailable("why"), copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert isinstance(error, LayerUnavailable)
        assert isinstance(error, ConnectionError)
        assert isinstance(error, redis.exceptions.ConnectionError)
        assert (repr(error), str(error), error.args) == ("LayerUnavailable('why')", "why", ("why",))
        assert f"{type(error).__module__}.{type(error).__qualname__}" == "headrace.exceptions.LayerUnavailable"
"""


def test_an_unavailable_layer_is_an_error_of_redis_py_where_that_is_imported() -> None:
    run(WITH_REDIS_PY)


def test_the_native_side_raises_it_as_an_error_of_redis_py() -> None:
    run("""
        import redis
        from headrace import LayerUnavailable, RedisChannelLayer

        layer = RedisChannelLayer(hosts=["redis://127.0.0.1:1"])
        try:
            layer.send_sync("channel", {"type": "n"}, confirm=True)
        except redis.RedisError as error:
            assert isinstance(error, LayerUnavailable)
            assert "127.0.0.1:1" in str(error)
            assert error.__cause__ is not None
        else:
            raise AssertionError("nothing was raised")
    """)


def test_without_channels_the_tree_has_the_same_names_and_bases() -> None:
    shared = {name: base.__name__ for name, base in SHARED.items()} | {"ChannelFull": "LayerError"}
    run(f"""
        import sys

        sys.modules["channels"] = None
        from headrace import exceptions

        for name, base in {shared}.items():
            found = getattr(exceptions, name)
            assert found.__module__ == "headrace.exceptions", found
            assert [parent.__name__ for parent in found.__bases__] == [base], found
        assert issubclass(exceptions.ChannelFull, exceptions.LayerError)
        assert sorted(exceptions.__all__) == {sorted(SHARED | OWN)}
    """)


def test_the_exceptions_do_not_import_django() -> None:
    run("""
        import sys
        import headrace.exceptions

        assert "channels.exceptions" in sys.modules
        assert not any(name.partition(".")[0] == "django" for name in sys.modules)
    """)


# What raises each exception of the native side, in a destructor at the end of the interpreter.
AT_THE_END = {
    "ChannelEmpty": "layer.receive_nowait('empty')",
    "ChannelFull": "[layer.send_sync('full', {'type': 'n'}) for _ in range(2)]",
    "ForeignChannel": "layer.receive_nowait('other!x')",
    "InvalidMessage": "layer.send_sync('channel', [])",
    "LayerClosed": "closed.send_sync('channel', {'type': 'n'})",
    "LayerUnavailable": "unreachable.send('channel', {'type': 'n'}).wait()",
    "MessageTooLarge": "pack({'type': 'n' * 100}, 10)",
}

LAST_OF_ALL = """if True:
    import asyncio, os, sys
    from headrace import InMemoryChannelLayer, RedisChannelLayer, _core

    class Last:
        def __init__(self, raises):
            self.raises = raises

        # By now the module has lost its names.
        def __del__(self, write=os.write, Exception=Exception, type=type):
            try:
                self.raises()
            except Exception as error:
                write(1, type(error).__name__.encode())

    pack = _core.pack
    layer, closed = InMemoryChannelLayer(capacity=1), InMemoryChannelLayer()
    asyncio.run(closed.close())
    redis = RedisChannelLayer(hosts=["redis://127.0.0.1:1"], send_timeout=0.01)
    # One that is not closed when the interpreter ends.
    unreachable = _core.RedisLayer(redis._settings, redis._core, 60, 60, _core.Runtime(), None)
    sys.last = Last(eval(f"lambda: {sys.argv[1]}", dict(globals())))
"""


@pytest.mark.parametrize("exception", _core.EXCEPTIONS, ids=lambda exception: exception.__name__)
def test_an_exception_may_first_be_raised_when_nothing_can_be_imported_any_more(exception: type[Exception]) -> None:
    ended = programs.run(LAST_OF_ALL, AT_THE_END[exception.__name__])
    assert ended == programs.Ended(0, [exception.__name__], "")
