"""Data on the host: vocabularies, prompts, documents and their batches."""
