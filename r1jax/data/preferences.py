"""Preferences: a prompt, several responses to it, and how good each one is.

A source (files here, as those of prompts in sources.py) leaves records
    prompt     a question, or the messages before the answer
    responses  texts
    grades     a number each, the greater the better; equal ones are not
               compared. Safe is 1 and unsafe 0 for a point-wise model
    task       the name of what it came from
Which response is named first says nothing: each is scored alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from r1jax import config as config_lib
from r1jax.data import jsonl_rows
from r1jax.data import names
from r1jax.data import sources

Record = dict[str, Any]

_HUMAN, _ASSISTANT = '\n\nHuman:', '\n\nAssistant:'
_THOUGHT, _END_OF_THOUGHT = '<think>', '</think>'


def jsonl(argument: str, split: str, *, prompt: str = 'prompt',
          task: str | None = None) -> list[Record]:
  """The preferences of a file of one JSON object a line, in one of three forms.

  {"prompt": ..., "responses": [...], "grades": [...]}; {"prompt": ...,
  "chosen": ..., "rejected": ...}; or HH's, where chosen and rejected are whole
  conversations, "\\n\\nHuman: ...\\n\\nAssistant: ...", that part at the last
  answer (those that part before are left out, and said). A prompt may be
  messages.
  """
  task = jsonl_rows.title(argument, split) if task is None else task
  found, unlike = [], 0
  for place, row in jsonl_rows.rows(argument, split):
    if 'responses' in row:
      record = dict(prompt=jsonl_rows.field(row, 'prompt', prompt, place),
                    responses=row['responses'],
                    grades=jsonl_rows.field(row, 'grades', 'grades', place))
    else:
      pair = [jsonl_rows.field(row, name, name, place)
              for name in ('chosen', 'rejected')]
      if prompt in row:
        before = row[prompt]
      else:
        (before, *other), pair = zip(*(_dialogue(x, place) for x in pair))
        if before != other[0]:
          unlike += 1
          continue
      record = dict(prompt=before, responses=list(pair), grades=[1., 0.])
    _check(record, place)
    found.append(record | dict(task=task))
  if unlike:
    print(f'{unlike} pairs of {argument} are of two different conversations '
          'and left out')
  if not found:
    raise config_lib.ConfigError(f'config.data.task: {argument} has no pairs')
  return found


SOURCES = {'jsonl': jsonl}


def read(task: str, split: str, options: dict[str, Any]) -> list[Record]:
  """The records of a task, 'jsonl:PATH'.

  Raises:
    ConfigError: names the field of config.data that is wrong.
  """
  kind, _, argument = str(task).partition(':')
  names.check('config.data.task', kind, SOURCES)
  sources.check_options(SOURCES[kind], options)
  return SOURCES[kind](argument, split, **options)


def _check(record: Record, place: str) -> None:
  """Refuses what is no preference, by name."""
  responses, grades = record['responses'], record['grades']
  if not (isinstance(responses, list) and isinstance(grades, list)
          and responses and len(responses) == len(grades)
          and all(isinstance(x, str) for x in responses)
          and all(isinstance(x, (int, float)) for x in grades)):
    raise config_lib.ConfigError(
        f'config.data.task: {place}: expected texts and as many grades, '
        f'received {responses!s:.60} and {grades!s:.60}')


def _dialogue(text: str, place: str) -> tuple[list[dict[str, str]], str]:
  """HH's conversation as messages, and the last answer."""
  before, mark, answer = text.rpartition(_ASSISTANT) if isinstance(
      text, str) else ('', '', '')
  if not mark or not before.startswith(_HUMAN):
    raise config_lib.ConfigError(
        f'config.data.task: {place}: expected a conversation that begins with '
        f'{_HUMAN!r} and whose last turn begins with {_ASSISTANT!r}, received '
        f'{text!r:.60}; a pair of answers needs its prompt in a field of '
        "config.data.options.prompt")
  messages = []
  for turn in before[len(_HUMAN):].split(_HUMAN):
    said, *answers = turn.split(_ASSISTANT)
    messages.append({'role': 'user', 'content': said.strip()})
    messages += [{'role': 'assistant', 'content': x.strip()} for x in answers]
  return messages, answer.strip()


def summary(response: str) -> str:
  """What stands behind the thinking: all that helpfulness is judged by.

  Nothing, where the thinking has no end. DeepSeek-R1 (arXiv 2501.12948,
  2.3.4): helpfulness on the final summary, harmlessness on the whole response.
  """
  _, ended, said = response.rpartition(_END_OF_THOUGHT)
  return '' if not ended and _THOUGHT in response else said.strip()


def balanced(records: Sequence[Record]) -> list[Record]:
  """Records of which the better response is the longer as often as not.

  A reward model then cannot win by length (R1 balances its pairs likewise,
  arXiv 2501.12948v2, 3.1). Among records whose better responses are longer by
  about as much, in steps of a factor 2 of the difference in characters, the
  surplus of the more frequent sign is left out, the last ones first.
  """
  size = [_longer(record) for record in records]
  bins = [0 if not d else 1 + int(np.log2(abs(d))) for d in size]
  kept = []
  for b in sorted(set(bins)):
    signs = [[i for i, d in enumerate(size) if bins[i] == b and d * s > 0]
             for s in (1, -1)]
    count = min(map(len, signs))
    kept += [i for part in signs for i in part[:count]]
    kept += [i for i, d in enumerate(size) if bins[i] == b and not d]
  return [records[i] for i in sorted(kept)]


def _longer(record: Record) -> float:
  """By how many characters the better response of a pair is longer, a mean."""
  length = [len(text) for text in record['responses']]
  pairs = [n - m for n, g in zip(length, record['grades'])
           for m, h in zip(length, record['grades']) if g > h]
  return float(np.mean(pairs)) if pairs else 0.
