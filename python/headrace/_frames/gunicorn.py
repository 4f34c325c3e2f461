"""gunicorn's worker that serves by uvicorn, with headrace's protocol for WebSockets."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker as _UvicornWorker

from headrace._frames.uvicorn import WebSocketProtocol

__all__ = ["UvicornWorker"]


class UvicornWorker(_UvicornWorker):  # type: ignore[misc]  # without types
    """The worker of the package ``uvicorn-worker``, whose WebSockets write ready-made frames too.

    ``gunicorn application:app -k headrace.gunicorn.UvicornWorker``. Nothing else differs: a class of its own with other
    ``CONFIG_KWARGS`` is a subclass of this one. It needs the extra ``headrace[gunicorn]``.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**_UvicornWorker.CONFIG_KWARGS, "ws": WebSocketProtocol}
