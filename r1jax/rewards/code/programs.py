"""The program of a response: its last block of Python."""

import re

from r1jax.data import thinking

# A fence of Markdown: three or more of ` or ~, indented by at most three
# spaces, and what kind of text it opens.
_FENCE = re.compile(r'^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$', re.MULTILINE)
_PYTHON = ('python', 'python3', 'py', 'py3')


def extract(text: str, finished: bool = True) -> str | None:
  """The last block of Python after a response's thinking, or None.

  A block is fenced, ```python or, where none is, ``` alone, and closed; blocks
  in other languages are passed over. A response that was cut has no program,
  nor has one whose last block does not end.
  """
  if not finished:
    return None
  answer = thinking.summary(text.replace('\r\n', '\n'))
  program, untagged, opened = None, None, None
  for fence in _FENCE.finditer(answer):
    mark, info = fence.groups()
    if opened is None:
      opened = mark, info, fence.end()
    elif mark.startswith(opened[0]) and not info.strip():
      language = (opened[1].split() or [''])[0].lower()
      block = answer[opened[2] + 1:fence.start()]
      if language in _PYTHON:
        program = block
      elif not language:
        untagged = block
      opened = None
  if program is None:
    program = untagged
  if opened is not None or program is None or not program.strip():
    return None
  return program
