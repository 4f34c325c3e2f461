"""Ready-made WebSocket frames: the extension ``headrace.frames`` of a scope, and a server that has it.

The contract is in docs/reference/frames.md.
"""

__all__: list[str] = []
