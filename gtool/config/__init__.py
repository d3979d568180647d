"""Recipes: schema, TOML, settings."""
