"""The channel layers. `headrace.layers` has what is public."""

__all__: list[str] = []
