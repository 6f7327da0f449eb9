"""Hosts, the device mesh, and where arrays live on it."""
