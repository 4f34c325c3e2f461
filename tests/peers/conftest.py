"""Keeps what is laid beside the sources of other projects out of this suite: it imports them."""

collect_ignore = ["ours"]
