"""The miniature world: a base model, its corpus and tasks, offline."""
