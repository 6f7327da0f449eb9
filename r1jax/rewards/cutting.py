"""Cuts a response into the steps that a process reward model scores.

The steps are pieces of the text: end to end they are the text again. A piece
without a letter or digit belongs to the step before it.
"""

import bisect
from collections.abc import Callable, Sequence
import itertools
import re

from r1jax import errors

_ENDS = {  # what ends a step
    'lines': re.compile(r'\n+'),
    'paragraphs': re.compile(r'\n[^\S\n]*\n\s*'),
    # 2.5 is one number: a stop ends a sentence before a space alone.
    'sentences': re.compile(r'[.!?]+(?=\s)|[\u3002\uff01\uff1f]+|\n+'),
}
CUTS = tuple(_ENDS)
_WORD = re.compile(r'\w')
_BLOCK = 64  # tokens
_CONTEXT = 16  # tokens before a block: a text that begins may lose its space


def cut(text: str, how: str) -> list[str]:
  """The steps of a text; [] if it has no word.

  Args:
    text: a response.
    how: what ends a step, one of CUTS: a line break; an empty line, which is
      what a step of PRM800K and of ProcessBench is; or a sentence's end, in
      English or Chinese, where a step is a sentence.
  """
  errors.check_choice('cut', how, CUTS)
  ends = [found.end() for found in _ENDS[how].finditer(text)]
  steps, begin = [], 0
  for end in (*ends, len(text)):
    piece = text[begin:end]
    if _WORD.search(piece):
      steps.append(piece)
    elif steps:
      steps[-1] += piece
    else:
      continue  # put before the first step
    begin = end
  return steps


def last_tokens(steps: Sequence[str], tokens: Sequence[int],
                decode: Callable[[Sequence[int]], str]) -> list[int]:
  """The index of the token that completes each step.

  A token that holds the end of one step and the beginning of another completes
  the first. The last token completes what no other does, such as half a
  character.

  Args:
    steps: of the text that all `tokens` decode to.
    tokens: of a response.
    decode: tokens -> text; more tokens never give a shorter one.
  """
  length = prefix_length(tokens, decode)
  return [bisect.bisect_left(
      range(len(tokens) - 1), end, key=lambda last: length(last + 1))
          for end in itertools.accumulate(map(len, steps))]


def prefix_length(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]
                  ) -> Callable[[int], int]:
  """k -> how many characters the first k tokens give, but for half a one.

  To decode them all for every k would take the square of a response's length.
  So tokens are decoded from a multiple of _BLOCK on, with some before it, and
  `left_out` counts the characters before those. A decoder to which they do not
  tell all is seen by the sum, and decodes whole beginnings.
  """
  left_out = [0]

  def counted(begin: int, k: int) -> int:
    return len(decode(tokens[max(begin - _CONTEXT, 0):k]).rstrip('\ufffd'))

  def length(k: int) -> int:
    block = min(k // _BLOCK, len(left_out) - 1)
    return left_out[block] + counted(block * _BLOCK, k)

  for begin in range(_BLOCK, len(tokens), _BLOCK):
    left_out.append(length(begin) - counted(begin, begin))
  whole = decode(tokens).rstrip('\ufffd')
  if '\ufffd' in whole or length(len(tokens)) != len(whole):
    del left_out[1:]
  return length
