"""Device, precision, processes, random numbers."""

PRECISIONS = ("auto", "bf16", "fp32")  # gtool/runtime/precision.py says what `auto` is
