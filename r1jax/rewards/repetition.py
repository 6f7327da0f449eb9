"""Repetition: the share of word n-grams that were said before, and loops.

Source of the first: Yeo et al., "Demystifying Long Chain-of-Thought Reasoning
in LLMs", arXiv 2502.03373 (there a penalty per token; here one number a
response).
"""

import re
import zlib

# Chinese is written without spaces: each of its characters counts as a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
_LOOP_BYTES, _LOOP_RATIO = 500, 10


def penalty(text: str, n: int = 4) -> float:
  """-(1 - distinct n-grams / n-grams) of `text`, in (-1, 0].

  Case and punctuation are ignored. With n = 2, "a b a b a b" has five pairs,
  two of them distinct: -0.6. A text of fewer than n words has none: 0.
  """
  words = _WORD.findall(text.casefold())
  ngrams = list(zip(*(words[i:] for i in range(n))))
  if not ngrams:
    return 0.0
  return len(set(ngrams)) / len(ngrams) - 1.0


def looped(text: str) -> bool:
  """Whether a text says little again and again, in words or without any.

  One of 500 bytes or more is a loop if zlib makes it ten times smaller. Sound
  reasoning is far from it: of GSM8K's 8,792 solutions none is made more than
  3.2 times smaller, and a hundred worked ones of the mini world in a row 4.9
  times; "!" or "ha" a thousand times over is above 50.
  """
  content = text.encode("utf-8", "replace")
  return len(content) >= _LOOP_BYTES and (
      len(content) > _LOOP_RATIO * len(zlib.compress(content)))
