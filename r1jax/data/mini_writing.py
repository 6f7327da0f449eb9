"""Writings of the mini world, of every quality: what RLHF is shown on.

A model is fine-tuned on these demonstrations; how good a text is, its reader
says (rewards/taste.py).
"""

from collections.abc import Iterator
import itertools
import random

from r1jax.data import mini_general

_LINES = (1, 1, 2, 2, 2, 3, 3, 4, 5)  # of a demonstration, drawn from
_ABOUT = 0.7  # share of its lines that are about the topic
_AGAIN = 0.15  # chance of a line to be one that was there before


def prompts() -> Iterator[tuple[str, str, int]]:
  """Yields every (prompt, topic, language 0 or 1), both languages' in turn."""
  for topic in mini_general.TOPICS:
    for lang in (0, 1):
      for greeting, request in itertools.product(
          mini_general.GREETINGS[lang], mini_general.WRITE[lang]):
        yield greeting + request.format(topic[lang]), topic[lang], lang


def demonstration(rng: random.Random, topic: str, lang: int) -> str:
  """Writes a text that may be too short or long, repeat itself or stray."""
  about, other = mini_general.LINES[lang]
  lines = []
  for _ in range(rng.choice(_LINES)):
    if lines and rng.random() < _AGAIN:
      lines.append(rng.choice(lines))
    elif rng.random() < _ABOUT:
      lines.append(rng.choice(about).format(topic))
    else:
      lines.append(rng.choice(other))
  return '\n'.join(lines)
