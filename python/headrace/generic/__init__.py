"""Consumers for WebSockets and for HTTP, under the names that Django Channels gives them."""

__all__: list[str] = []
