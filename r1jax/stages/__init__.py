"""What can be trained or measured; each builds itself from a config."""
