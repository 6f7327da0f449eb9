"""Splits of generated problems, training and held out, by a hash."""

import hashlib
import re

from r1jax import errors

# The field named where a split is unknown: either of the two may have set it.
FIELD = 'data.split (or config.eval.split)'

_HELD_OUT = 8  # one prompt in eight


def held_out(prompt: str) -> bool:
  """Whether a prompt belongs to the held-out eighth, by a hash of its words.

  Their order does not count, so that 12 * 34 and 34 * 12 are in one split.
  """
  words = ' '.join(sorted(re.findall(r'\w+', prompt)))
  digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'big') % _HELD_OUT == 0


def check(split: str) -> None:
  """Raises `ConfigError` unless the split is 'train' or 'heldout'."""
  errors.check_choice(FIELD, split, ('train', 'heldout'))


def in_split(prompt: str, split: str) -> bool:
  """Whether a prompt is in `split`, 'train' or 'heldout'."""
  check(split)
  return held_out(prompt) == (split == 'heldout')
