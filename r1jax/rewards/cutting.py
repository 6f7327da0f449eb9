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
  ends = itertools.accumulate(map(len, steps))
  return [bisect.bisect_left(
      range(len(tokens) - 1), end,
      key=lambda last: len(decode(tokens[:last + 1]).rstrip('\ufffd')))
          for end in ends]
