"""Preference data: a prompt, several responses to it, and a grade for each.

A source gives records
    prompt     a question, or the messages before the answer
    responses  texts
    grades     a number per response, higher is better; equal grades are not
               compared. For a point-wise model, safe is 1 and unsafe 0
    task       the name of the source
    place      where the row is, for errors
The order of the responses has no meaning: each is scored alone.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import itertools
from typing import Any

import numpy as np

from r1jax import errors
from r1jax.data import columns
from r1jax.data import graded
from r1jax.data import json_lines
from r1jax.data import pieces
from r1jax.data import ragged
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import user_code

Record, Counts = graded.Record, graded.Counts

_RESPONSES = columns.Column(columns.texts, ('responses',))
_GRADES = columns.Column(columns.grades, ('grades',))
_PAIR = tuple(columns.Column(columns.text, (name,))
              for name in ('chosen', 'rejected'))
_HUMAN, _ASSISTANT = '\n\nHuman:', '\n\nAssistant:'


# Prompts that are left out, by reason.
LEFT_OUT = {
    'unlike': 'whose two answers end different conversations',
    'human_last': 'with an answer that ends in words of the human',
    'identical': 'with equal responses of unequal grades',
    'equal_grades': 'whose responses all have the same grade',
    'unbalanced': 'so that the better response is the longer as often as not',
    'too_long': 'that exceed config.preference.length with all responses, or '
                "the model's longest sequence with one",
}


def jsonl(argument: str, split: str, *, prompt: str | None = None,
          task: str | None = None) -> tuple[ragged.Records, Counts]:
  """The preferences of a file, in one of three forms.

  {"prompt": ..., "responses": [...], "grades": [...]}; {"prompt": ...,
  "chosen": ..., "rejected": ...}; or that of Anthropic HH, where chosen and
  rejected are whole conversations, "\\n\\nHuman: ...\\n\\nAssistant: ...", that
  differ in the last answer. A prompt may be messages.
  """
  task = json_lines.title(argument, split, task)
  asked = columns.Column(columns.prompt, ('prompt',), 'prompt', prompt)
  return _records(
      json_lines.stream_rows(argument, split), asked, task, argument)


def user_preferences(place: str, split: str, **options: Any
                     ) -> tuple[ragged.Records, Counts]:
  """The preferences that a user's function yields, in the same forms."""
  return _records(user_code.rows(place, split, None, None, options),
                  columns.Column(columns.prompt, ('prompt',)),
                  place.rpartition(':')[2], place)


SOURCES = {'jsonl': jsonl, sources.USER: user_preferences}


def read_preferences(task: str, split: str, options: dict[str, Any]
                     ) -> tuple[ragged.Records, Counts]:
  """The records of a task, 'jsonl:PATH' or 'FILE.py:FUNCTION'.

  Returns:
    The records, and how many prompts were left out, by reason (LEFT_OUT).

  Raises:
    ConfigError: names the field of config.data that is wrong.
  """
  return sources.read(SOURCES, task, split, options)


def _records(rows: Iterable[json_lines.Row], asked: columns.Column, task: str,
             origin: str) -> tuple[ragged.Records, Counts]:
  """The records of (place, row); `origin` names the source in errors."""
  left_out = collections.Counter()

  def found():
    for place, row in rows:
      record = _record(row, asked, place)
      if isinstance(record, str):
        left_out[record] += 1
      else:
        yield record | dict(task=task, place=place)

  records = graded.records_of(found())
  if not records:
    raise errors.ConfigError(
        'data.task', f'{origin} has no pairs'
        + (f'; left out: {graded.why_left_out(LEFT_OUT, left_out)}'
           if left_out else ''))
  return records, left_out


def _record(row: Mapping[str, Any], asked: columns.Column, place: str
            ) -> Record | str:
  """The record of a row, or the reason to leave it out, of LEFT_OUT."""
  if 'responses' in row:
    prompt = asked.read(row, place)
    responses = _RESPONSES.read(row, place)
    grades = _GRADES.read(row, place)
    if len(grades) != len(responses):
      raise _GRADES.refused(
          place, f'as many grades as the {len(responses)} responses', grades)
  else:
    responses = [column.read(row, place) for column in _PAIR]
    grades = [1., 0.]
    if asked.given is not None or asked.name(row) is not None:
      prompt = asked.read(row, place)
    else:
      (prompt, other), responses = zip(*(
          _dialogue(text, place, column)
          for text, column in zip(responses, _PAIR)))
      if prompt != other:
        return 'unlike'
      if any(_HUMAN in answer for answer in responses):
        return 'human_last'
      responses = [answer.strip() for answer in responses]
  if contradicts([text.strip() for text in responses], grades):
    return 'identical'
  return dict(prompt=prompt, responses=responses, grades=grades)


def contradicts(responses: Sequence[Any], grades: Sequence[float]) -> bool:
  """Whether one response has two grades: no model can rank it above itself."""
  return len(set(zip(responses, grades))) > len(set(responses))


def _dialogue(text: str, place: str, column: columns.Column
              ) -> tuple[list[dict[str, str]], str]:
  """HH's conversation as messages, and what follows the last mark of an answer.
  """
  before, mark, answer = text.rpartition(_ASSISTANT)
  if not mark or not before.startswith(_HUMAN):
    raise column.refused(
        place, f'a conversation that starts with {_HUMAN!r} and whose last '
        f'turn starts with {_ASSISTANT!r} (a pair of answers needs its prompt '
        'in a field of config.data.options.prompt)', text)
  messages = []
  for turn in before[len(_HUMAN):].split(_HUMAN):
    question, *answers = turn.split(_ASSISTANT)
    messages.append({'role': 'user', 'content': question.strip()})
    messages += [{'role': 'assistant', 'content': x.strip()} for x in answers]
  return messages, answer


def balance_lengths(records: Iterable[Record]) -> list[int]:
  """Numbers the records whose better response is as often longer as shorter.

  A reward model that learns from these alone cannot win by length (R1
  balances its pairs likewise, arXiv 2501.12948v2, 3.1). Records are binned by
  the difference in characters, in factors of 2; in each bin the surplus of the
  more frequent sign is left out, the last ones first.
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
  return sorted(kept)


def _longer(record: Record) -> float:
  """Mean lead of the better response over the worse, in characters."""
  length = [len(text) for text in record['responses']]
  pairs = [n - m for n, g in zip(length, record['grades'])
           for m, h in zip(length, record['grades']) if g > h]
  return float(np.mean(pairs)) if pairs else 0.


def written(write: templates.Write, record: Record) -> list[pieces.Piece]:
  """The pieces of a record: its prompt, and each response."""
  with errors.at(record['place']):
    return write(record['prompt'], record['responses'])


def take(encoded: graded.Encoded, made: graded.Builder, length: int,
         max_len: int | None = None) -> Counts:
  """Adds records with the ids of their pieces to `made`; counts the others.

  A prompt is left out if with all its responses it exceeds `length`, or with
  one of them `max_len`, the model's longest sequence; or if two responses of
  unlike grades are the same tokens.

  Raises:
    ConfigError: no record is left.
  """
  left_out = collections.Counter(too_long=0, identical=0)
  shortest = np.inf
  for record, _, ids, sizes in encoded:
    said = [ids[first:last].tobytes() for first, last in itertools.pairwise(
        itertools.accumulate(sizes))]
    if contradicts(said, record['grades']):
      left_out['identical'] += 1
    elif len(ids) <= length and sizes[0] + max(sizes[1:]) <= (
        max_len or length):
      made.add(record, ids, sizes, record['grades'])
    else:
      left_out['too_long'] += 1
      shortest = min(len(ids), shortest)
  if not made and left_out['too_long']:
    raise errors.expected(
        'preference.length', f'at least {shortest}, the tokens of the '
        'shortest prompt with its responses', length)
  if not made:
    raise errors.ConfigError(
        'data.task', 'no prompts; left out: '
        + graded.why_left_out(LEFT_OUT, left_out))
  return left_out
