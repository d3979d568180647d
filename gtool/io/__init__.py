"""Files: run folders, weights, pictures, videos, the hub."""
