"""The bridges are asgiref's own, so that they work together with Django's."""

import asgiref.sync

from headrace import sync


def test_the_bridges_are_those_of_asgiref() -> None:
    assert sync.async_to_sync is asgiref.sync.async_to_sync
    assert sync.sync_to_async is asgiref.sync.sync_to_async


async def test_there_and_back_again() -> None:
    async def double(number: int) -> int:
        return number * 2

    assert await sync.sync_to_async(sync.async_to_sync(double))(21) == 42
