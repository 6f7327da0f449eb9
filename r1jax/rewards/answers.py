"""Extracts the answer of a response, by how the model marks it."""

import re

from r1jax.data import thinking

ANSWERS = ('tags', 'boxed', 'any', 'number', 'summary', 'whole')

# -1,234.5, .5, 1.5e3, 1.5 \times 10^{3}, 3/4, 1 1/2. A minus after a number or
# bracket is a subtraction, not a sign; 10/12/2024 is no fraction.
_DIGITS = r'(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)'
_NUMBER = re.compile(
    r'(?:(?<![\w.)])[-\u2212])?(?<![/\d])(?:\d+ )?\d+/\d+(?![/\d])|'
    rf'(?:(?<![\w.)])[-\u2212])?{_DIGITS}(?:[eE][-+\u2212]?\d+|'
    r'\s*(?:\u00d7|\\times|\*)\s*10\s*\^\s*(?:[-\u2212]?\d+|'
    r'\{\s*[-\u2212]?\d+\s*\}))?', re.ASCII)
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
      'boxed': the content of the last \\boxed{...}, or of the last \\fbox{...}.
      'any': tags, else boxed.
      'number': the last number, for models that were trained on no other form.
      'summary': the summary's box, else its tags, else all of the summary.
      'whole': the text, where nothing marks an answer.
    finished: it was not cut at the token limit; the whole of a summary that
      was cut is not an answer.
  """
  if answer == 'summary':
    text = thinking.summary(text)
    content = _boxed(text)
    if content is None:
      content = _tagged(text) or (text if finished else '')
    return content.strip() or None
  if answer == 'number':
    found = _NUMBER.findall(text)
    return found[-1].replace('\u2212', '-') if found else None
  content = text if answer == 'whole' else None
  if answer in ('tags', 'any'):
    content = _tagged(text)
  if content is None and answer in ('boxed', 'any'):
    content = _boxed(text)
  return content.strip() or None if content is not None else None


def _tagged(text: str) -> str | None:
  if any(text.count(tag) != 1
         for tag in (thinking.ANSWER, thinking.END_OF_ANSWER)):
    return None
  match = _BLOCK.search(text)
  return match.group(1) if match else None


def _boxed(text: str) -> str | None:
  box = None
  for box in _BOX.finditer(text):
    pass
  if box is None:
    return None
  start = box.end()
  if text[start:start + 1] != '{':  # \boxed 5
    bare = _BARE.match(text, start)
    return bare and bare[0]
  depth = 0
  for brace in _BRACE.finditer(text, start):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return text[start + 1:brace.start()]
  return None
