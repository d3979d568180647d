"""Building blocks that would serve more than one paper."""
