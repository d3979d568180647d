"""`gtool eval`: from the command line to scores, gates and reports."""
