"""Who may connect."""

__all__: list[str] = []
