"""The socket servers. `headrace.sockets` has what is public."""

__all__: list[str] = []
