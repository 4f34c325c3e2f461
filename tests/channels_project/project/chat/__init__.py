"""A small Django project on channels, whose channel layer is named by an environment variable."""
