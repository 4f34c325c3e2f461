"""Benches: what headrace costs, and what its peers cost. README.md tells the method."""
