"""What ASGI middleware may build on."""

from collections.abc import Callable
from typing import Any

from headrace._paths import as_application
from headrace.typing import Receive, Scope, Send

__all__ = ["BaseMiddleware"]


class BaseMiddleware:
    """Runs an application with a scope of its own, so that what is put into it does not reach whoever stands outside.

    One instance serves all connections: a subclass keeps what belongs to one of them in the scope. It overrides
    ``__call__`` and calls ``super().__call__``.

    Differs from Channels' in that ``inner`` may be a consumer class.
    """

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner: Any = as_application(inner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application with a shallow copy of the scope; return and raise what it does."""
        return await self.inner(dict(scope), receive, send)
