"""The channel layers. `headrace.layers` has what is public."""
