"""What the database of the project is made from."""
