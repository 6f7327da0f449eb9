"""Extracts the answer of a response, by how the model marks it."""

import re

from r1jax.data import thinking

ANSWERS = ('tags', 'boxed', 'any', 'number', 'summary', 'whole')

# A minus after a number or bracket is a subtraction, not a sign.
_NUMBER = re.compile(
    r'(?:(?<![\w.)])-)?\d+(?:,\d{3})*(?:\.\d+)?', re.ASCII)
_BLOCK = re.compile(
    rf'{thinking.ANSWER}(.*){thinking.END_OF_ANSWER}\s*\Z', re.DOTALL)
_BRACE = re.compile(r'\\.|[{}]', re.DOTALL)  # escaped braces do not count


def extract_answer(text: str, answer: str, finished: bool = True) -> str | None:
  """The answer in a response, stripped, or None if it gives none.

  Args:
    text: the response.
    answer: how the answer is marked:
      'tags': the content of the only <answer> block, which must end the text.
      'boxed': the content of the last \\boxed{...}.
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
    return (_NUMBER.findall(text) or [None])[-1]
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
  start = text.rfind('\\boxed{')
  if start < 0:
    return None
  start += len('\\boxed{')
  depth = 1
  for brace in _BRACE.finditer(text, start):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return text[start:brace.start()]
  return None
