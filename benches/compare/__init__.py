"""headrace beside Django Channels and beside bare asyncio, in alternating rounds: ``python -m benches.compare``."""
