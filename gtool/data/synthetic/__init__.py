"""Images drawn by the program."""
