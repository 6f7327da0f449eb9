"""Experiments: a file of `get_config(arg)` each; see r1jax/main.py."""
