"""Rewards that are rules of the text alone: format, length, repetition."""

import re
import zlib

from r1jax.data import thinking

FORMS = ('answer', 'summary')

_THOUGHT = rf'\s*{thinking.THINK}(.*){thinking.END_OF_THINKING}'
_FORMS = {
    'answer': re.compile(
        rf'{_THOUGHT}\s*{thinking.ANSWER}(.*){thinking.END_OF_ANSWER}\s*',
        re.DOTALL),
    'summary': re.compile(rf'{_THOUGHT}(.*)', re.DOTALL)}
# Tags that occur, each once.
_EACH = {'answer': thinking.TAGS, 'summary': thinking.TAGS[:2]}


def format_reward(text: str, form: str = 'answer') -> float:
  """1.0 if `text` is exactly the two parts, neither of them blank, else 0.0.

  Only white space is allowed around and between blocks, and a tag of the form
  occurs once, another never: a second block, a nested tag, or text after an
  answer scores 0.
  """
  if any(text.count(tag) != (tag in _EACH[form]) for tag in thinking.TAGS):
    return 0.0
  match = _FORMS[form].fullmatch(text)
  if match is None:
    return 0.0
  return float(all(part.strip() for part in match.groups()))


def overlong_penalty(tokens: int, finished: bool, limit: int, cache: int
                     ) -> float:
  """The penalty, 0 to -1, of a response of `tokens` tokens, its EOS included.

  A response that did not finish was cut at the limit: it scores -1. With limit
  100 and cache 20, 80 tokens score 0, 90 score -0.5, 100 score -1.
  """
  length = tokens if finished else max(tokens, limit)
  return -min(max((length - (limit - cache)) / cache, 0.0), 1.0)


# Chinese is written without spaces: each of its characters counts as a word.
_WORD = re.compile(r'[\u3400-\u9fff]|[^\W\u3400-\u9fff]+')
_LOOP_BYTES, _LOOP_RATIO = 500, 10


def words(text: str) -> list[str]:
  """The words of a text, in lower case and without punctuation."""
  return _WORD.findall(text.casefold())


def repetition_penalty(text: str, n: int = 4) -> float:
  """-(1 - distinct n-grams / n-grams) of `text`, in (-1, 0].

  Case and punctuation are ignored. With n = 2, "a b a b a b" has five pairs,
  two of them distinct: -0.6. A text of fewer than n words has none: 0.
  """
  found = words(text)
  ngrams = list(zip(*(found[i:] for i in range(n))))
  if not ngrams:
    return 0.0
  return len(set(ngrams)) / len(ngrams) - 1.0


def is_loop(text: str) -> bool:
  """Whether a text repeats the same few words or characters.

  One of 500 bytes or more is a loop if zlib compresses it more than ten times.
  Sound reasoning is far from it: none of GSM8K's 8,792 solutions compresses
  more than 3.2 times, a hundred worked ones of the mini world in a row 4.9
  times; "!" or "ha" a thousand times over more than 50 times.
  """
  content = text.encode('utf-8', 'replace')
  return len(content) >= _LOOP_BYTES and (
      len(content) > _LOOP_RATIO * len(zlib.compress(content)))
