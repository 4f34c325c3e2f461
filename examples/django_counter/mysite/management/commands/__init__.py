"""Commands of the project, a module for each."""
