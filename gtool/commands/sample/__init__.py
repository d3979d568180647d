"""`gtool sample`: from the command line to pictures."""
