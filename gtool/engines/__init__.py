"""Training families: init_state, step, generate."""
