"""`gtool sample`: pictures from trained networks."""
