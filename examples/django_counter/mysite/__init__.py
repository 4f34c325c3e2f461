"""A counter that everybody shares, in Django."""
