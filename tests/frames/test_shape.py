"""What headrace asks of uvicorn's class: a release that has it otherwise is refused, and told."""

from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from headrace._frames.uvicorn import check_shape


def test_the_uvicorn_that_is_installed_is_known() -> None:
    check_shape(WebSocketsSansIOProtocol)


def test_a_class_without_a_method_is_refused() -> None:
    class Changed:
        def __init__(self) -> None:
            self.conn = self.transport = self.writable = None

        async def run_asgi(self) -> None:
            """Stand for uvicorn's."""

        def connection_lost(self, exc: Exception | None) -> None:
            """Stand for uvicorn's."""

    with pytest.raises(ImportError, match=r"Changed has no receive\(\), no send\(\); install a newer headrace"):
        check_shape(Changed)


def test_a_class_without_an_attribute_is_refused() -> None:
    def make(self: Any) -> None:
        self.transport = self.connection = self.can_write = None

    changed = type("Changed", (), {**vars(WebSocketsSansIOProtocol), "__init__": make})
    with pytest.raises(ImportError, match="has no conn, no writable; install a newer headrace"):
        check_shape(changed)
