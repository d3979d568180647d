"""`gtool export`: trained networks as files for other programs and for the hub; checkpoints of original code."""
