"""Device, precision, processes, random numbers."""
