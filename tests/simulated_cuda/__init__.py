"""A simulated CUDA device, and what gtool does on it: `device` simulates, `scenarios` runs in a process of its own."""
