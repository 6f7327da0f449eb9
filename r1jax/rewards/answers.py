"""Extracts the answer of a response, by how the model marks it."""

import re

from r1jax.data import thinking

ANSWERS = ('tags', 'boxed', 'any', 'number', 'last', 'summary', 'whole')

# -1,234.5, .5, 1.5e3, 1.5 \times 10^{3}, 2^{10}, 3/4, 1 1/2, \frac{1}{3}. A
# minus after a number or bracket is a subtraction; 10/12/2024 is no fraction.
_SIGN = r'(?:(?<![\w.)])[-\u2212\u2013](?:\\?[$\u20ac\u00a3])?)?'
_DIGITS = (r'(?:\d+(?:(?:,|\{,\}|\\,|,?\\!)\d{3})*(?:\.\d+)?|(?<![\w.])\.\d+)'
           r'[\u00bc-\u00be\u2150-\u215e]?')
_POWER = r'\s*\^\s*(?:[-\u2212]?\d+|\{\s*[-\u2212]?\d+\s*\})'
_NUMBER = re.compile('|'.join([
    rf'{_SIGN}\\[dt]?frac\s*\{{\d+\}}\s*\{{\d+\}}',
    rf'{_SIGN}(?<![/\d])(?:\d+ )?\d+/\d+(?![/\d])',
    rf'{_SIGN}{_DIGITS}(?:[eE][-+\u2212]?\d+|'
    rf'\s*(?:\u00d7|\\times|\*|x)\s*10{_POWER}|{_POWER})?']), re.ASCII)
_PLAIN = re.compile(r'[\u2212\u2013](?:\\?[$\u20ac\u00a3])?|'
                    r'-\\?[$\u20ac\u00a3]')
_BLOCK = re.compile(
    rf'{thinking.ANSWER}(.*){thinking.END_OF_ANSWER}\s*\Z', re.DOTALL)
_BOX = re.compile(r'\\(?:boxed|fbox)(?![A-Za-z])\s*')
_BARE = re.compile(rf'-?{_DIGITS}|[A-Za-z]|\\pi(?![A-Za-z])', re.ASCII)
_BRACE = re.compile(r'\\.|[{}]', re.DOTALL)  # escaped braces do not count


def extract_answer(text: str, answer: str, finished: bool = True) -> str | None:
  """The answer in a response, stripped, or None if it gives none.

  Args:
    text: the response.
    answer: how the answer is marked:
      'tags': the content of the only <answer> block, which must end the text.
      'boxed': the content of the last \\boxed{...} or \\fbox{...}.
      'any': tags, else boxed.
      'number': the last number, for models that were trained on no other form.
      'last': boxed, else number: for models that seldom follow a form.
      'summary': a box, else tags, else all of it.
      'whole': all of it, where nothing marks an answer.
    finished: it was not cut at the token limit. Of one that was, only an answer
      that is marked counts: the last number was perhaps not the last.

  No draft in the thinking is an answer, and a response that never ends its
  thinking gives none; but an <answer> block that ends the text is one even
  where </think> is missing, which costs the format reward.
  """
  said = thinking.summary(text)
  content = None
  if answer in ('tags', 'any'):
    content = _tagged(text)
  if content is None and answer in ('boxed', 'any', 'last', 'summary'):
    content = _boxed(said, finished)
  if content is None and answer == 'summary':
    content = _tagged(said) or None
  if content is None and finished:
    content = {'number': _last_number, 'last': _last_number,
               'summary': str, 'whole': str}.get(answer, _nothing)(said)
  return content.strip() or None if content is not None else None


def _nothing(text: str) -> None:
  del text


def _last_number(text: str) -> str | None:
  found = _NUMBER.findall(text)
  return _PLAIN.sub('-', found[-1]) if found else None


def _tagged(text: str) -> str | None:
  if any(text.count(tag) != 1
         for tag in (thinking.ANSWER, thinking.END_OF_ANSWER)):
    return None
  match = _BLOCK.search(text)
  return match.group(1) if match else None


def _boxed(text: str, finished: bool = True) -> str | None:
  box = None
  for box in _BOX.finditer(text):
    pass
  if box is None:
    return None
  start = box.end()
  if text[start:start + 1] != '{':  # \boxed 5
    bare = _BARE.match(text, start)
    whole = bare and (finished or bare.end() < len(text))
    return bare[0] if whole else None
  depth = 0
  for brace in _BRACE.finditer(text, start):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return text[start + 1:brace.start()]
  return None
