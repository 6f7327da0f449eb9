"""The DeepSeek-R1 recipe in JAX: from a base model to a reasoner."""
