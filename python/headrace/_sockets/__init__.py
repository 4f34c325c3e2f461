"""The socket servers. `headrace.sockets` has what is public."""
