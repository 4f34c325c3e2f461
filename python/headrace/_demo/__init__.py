"""A chat over real WebSockets, served from the channel layer: `headrace demo`.

`make_app` is a plain ASGI application and needs nothing but a layer.
Serving it (`headrace._demo.serve`) and checking it (`headrace._demo.clients`) need the extra
`demo`, so those two modules are imported only by the command.
"""

from headrace._demo.app import make_app

__all__ = ["make_app"]
