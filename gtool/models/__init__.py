"""Networks of the papers, a folder a family; the table is in `registry`."""
