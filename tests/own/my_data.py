"""Prompts with answers; any further field reaches the reward functions."""


def sums(seed, count, largest=20):
  """Yields `count` sums; one in eight is held out, for there is no `split`."""
  del count  # yield as many as there are
  for number in range(largest * largest):
    a, b = divmod((number + seed) % (largest * largest), largest)
    yield {'prompt': f'What is {a} plus {b}?', 'answer': a + b,
           'verifier': 'exact', 'level': 1 if a + b < 10 else 2,
           'number': number}
