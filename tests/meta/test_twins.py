"""Whatever waits can be called without a loop too: each coroutine function of a layer has a twin."""

import inspect

import pytest

from headrace.layers import InMemoryChannelLayer, RedisChannelLayer

# Each with what to use in its place.
WITHOUT = {"close_pools": "close_sync, which waits for the same; close_pools has the name that channels_redis gave it"}
LAYERS = [InMemoryChannelLayer, RedisChannelLayer]


def functions(layer: type) -> dict[str, object]:
    public = [{name: each for name, each in vars(kind).items() if not name.startswith("_")} for kind in layer.__mro__]
    return {name: each for names in reversed(public) for name, each in names.items() if inspect.isfunction(each)}


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("layer", LAYERS)
def test_whatever_waits_has_a_twin_with_the_same_parameters(layer: type) -> None:
    found = functions(layer)
    waiting = {name: each for name, each in found.items() if inspect.iscoroutinefunction(each)}
    assert {"send", "receive_many", "flush"} <= waiting.keys()
    for name, method in waiting.items():
        if name in WITHOUT:
            continue
        twin = found.get(f"{name}_sync")
        assert twin is not None, f"{name} has no twin"
        assert parameters(twin)[: len(parameters(method))] == parameters(method), name


@pytest.mark.parametrize("layer", LAYERS)
def test_a_twin_is_no_coroutine_function_and_has_an_original(layer: type) -> None:
    found = functions(layer)
    twins = [name for name in found if name.endswith("_sync")]
    assert twins
    for name in twins:
        assert not inspect.iscoroutinefunction(found[name])
        assert inspect.iscoroutinefunction(found[name.removesuffix("_sync")])


def test_a_method_of_both_layers_is_written_once() -> None:
    own = [{name for name, each in vars(layer).items() if inspect.isfunction(each)} for layer in LAYERS]
    here, spanning = ({name for name in names if not name.startswith("_")} for names in own)
    # They return readings of different types.
    assert here & spanning == {"stats"}
