"""How many instructions the hot paths take, counted by callgrind: ``python -m benches.instructions``."""
