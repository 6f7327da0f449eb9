"""Lessons of the mini world: what a teacher would write, none of it sampled.

Problems of the training split with responses that are right: the long worked
examples that a model is shown in its prompt (few-shot).
"""

import random

from r1jax.data import mini
from r1jax.data import mini_solutions

MODES = tuple(mode for mode in mini_solutions.MODES
              if mode.partition('_')[0] in ('short', 'long'))


def worked(split: str, count: int, seed: int, mode: str
          ) -> list[tuple[str, str]]:
  """Writes `count` (question, right response of `mode`), tasks in turn."""
  rng = random.Random(f'worked/{split}/{seed}')
  found = []
  for record in mini.records(split, count, seed):
    response = mini_solutions.respond(rng, record['entry'], mode)
    while not response.right:
      response = mini_solutions.respond(rng, record['entry'], mode)
    found.append((record['prompt'], response.text))
  return found
