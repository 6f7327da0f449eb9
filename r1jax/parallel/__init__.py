"""Hosts, the mesh of their devices, where arrays lie on it, and memory."""
