"""An argument of a layer that there is not: the error names those like it."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from headrace.layers import InMemoryChannelLayer, RedisChannelLayer


class OwnLayer(RedisChannelLayer):
    """A project's own, which passes on what it is given."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)


@pytest.mark.parametrize(
    ("make", "argument", "fault"),
    [
        (
            RedisChannelLayer,
            "hots",
            "RedisChannelLayer.__init__() got an unexpected keyword argument 'hots'; did you mean",
        ),
        (RedisChannelLayer, "host", "did you mean 'hosts'?"),
        (InMemoryChannelLayer, "capcity", "did you mean 'capacity' or "),
        (InMemoryChannelLayer, "zzz", "it knows 'expiry', 'group_expiry', 'capacity'"),
        (
            OwnLayer,
            "group_expire",
            "OwnLayer.__init__() got an unexpected keyword argument 'group_expire'; did you mean",
        ),
    ],
)
def test_a_mistyped_argument_is_told_what_may_have_been_meant(
    make: Callable[..., object], argument: str, fault: str
) -> None:
    with pytest.raises(TypeError) as caught:
        make(**{argument: 1})
    assert fault in str(caught.value)


def test_the_signature_stays() -> None:
    assert list(inspect.signature(InMemoryChannelLayer).parameters)[:3] == ["expiry", "group_expiry", "capacity"]
    assert InMemoryChannelLayer(5, capacity=3).capacity == 3
