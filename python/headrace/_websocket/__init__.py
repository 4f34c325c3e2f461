"""What consumers and socket servers have in common: how a WebSocket is opened, served and closed."""

__all__: list[str] = []
