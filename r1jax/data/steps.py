"""Responses in steps, with a label for each: what a process reward model reads.

A source gives records
    prompt  a question, or the messages before the answer
    steps   texts
    labels  of each step, from 0, wrong, to 1, right; None where it has none
    task    the name of the source
    place   where the row is, for errors
A step is read with the prompt and the steps before it, never with a label: the
tokens of its text and of a separator follow those of the steps before, and its
score is read at the last of them.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools
import math
import re
from typing import Any, NamedTuple

import numpy as np

from r1jax import errors
from r1jax.data import columns
from r1jax.data import graded
from r1jax.data import json_lines
from r1jax.data import pieces
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import user_code

Record = graded.Record

IGNORED = -100  # the label of PyTorch's losses for what does not count
NEUTRAL = {'right': 1., 'wrong': 0., 'ignored': None}
_SHEPHERD = 'ки'  # the mark at the end of Math-Shepherd's steps

# Responses that are left out, by reason.
LEFT_OUT = {
    'unlabelled': 'without a labelled step',
    'given_up': 'whose labelling was given up, or whose problem is bad',
    'blank': 'whose last step is blank',
    'too_long': "that exceed config.preference.length or the model's longest "
                'sequence',
}


###############################################################################
# Sources
###############################################################################


def jsonl(argument: str, split: str, *, prompt: str | None = None,
          labels: str | None = None, neutral: str = 'right',
          task: str | None = None) -> tuple[Iterator[Record], graded.Counts]:
  """The labelled steps of a file, in one of four forms.

  {"prompt": ..., "steps": [...], "labels": [...]} (or TRL's "completions" for
  "steps"), where `prompt` and `labels` may name other columns, and a label of
  null, NaN or -100 is none; and as published:
    ProcessBench (arXiv 2412.06559): problem, steps, and a label, the index of
      the first wrong step, -1 if all are right. Steps after it have no label.
    PRM800K (arXiv 2305.20050): question.problem and label.steps, where every
      step has completions with ratings. The steps that were chosen are one
      record, and each other completion is the last step of one of its own, in
      which no other is labelled. `neutral` is what a rating of 0 becomes, of
      NEUTRAL: by its appendix F right is best for a product of steps. Steps
      that a person wrote were never sampled; they have no label. A blank step
      is left out with what follows it, and counted.
    Math-Shepherd (arXiv 2312.08935): input with the mark 'ки' after each step,
      and label, the same text with + or - in its place.
  """
  errors.check_choice('data.options.neutral', neutral, NEUTRAL)
  task = json_lines.title(argument, split, task)
  return _records(json_lines.stream_rows(argument, split), _Columns(
      columns.Column(columns.prompt, columns.QUESTIONS, 'prompt', prompt),
      columns.Column(_labels, ('labels',), 'labels', labels)),
                  NEUTRAL[neutral], task, argument)


def user_steps(place: str, split: str, **options: Any
               ) -> tuple[Iterator[Record], graded.Counts]:
  """The labelled steps that a user's function yields, in the same forms."""
  return _records(user_code.rows(place, split, None, None, options), _Columns(
      columns.Column(columns.prompt, columns.QUESTIONS),
      columns.Column(_labels, ('labels',))), NEUTRAL['right'],
                  place.rpartition(':')[2], place)


SOURCES = {'jsonl': jsonl, sources.USER: user_steps}


def read_steps(task: str, split: str, options: dict[str, Any]
               ) -> tuple[Iterator[Record], graded.Counts]:
  """The records of a task, 'jsonl:PATH' or 'FILE.py:FUNCTION'.

  Returns:
    The records, and how many responses were left out, by reason (LEFT_OUT),
    once all are read.

  Raises:
    ConfigError: names the field of config.data that is wrong.
  """
  return sources.read(SOURCES, task, split, options)


class _Columns(NamedTuple):
  """The columns of a file in the plain form, besides the steps."""
  prompt: columns.Column
  labels: columns.Column


def _records(rows: Iterable[json_lines.Row], named: _Columns,
             neutral: float | None, task: str, origin: str
             ) -> tuple[Iterator[Record], graded.Counts]:
  """The records of (place, row); `origin` names the source in errors."""
  left_out = collections.Counter()

  def labelled():
    there = False
    for place, row in rows:
      for found in _of_row(row, place, named, neutral):
        if isinstance(found, str):
          left_out[found] += 1
        elif all(label is None for label in found['labels']):
          left_out['unlabelled'] += 1
        else:
          there = True
          yield found | dict(task=task, place=place)
    if not there:
      raise errors.ConfigError(
          'data.task', f'{origin} has no labelled steps'
          + (f'; left out: {graded.why_left_out(LEFT_OUT, left_out)}'
             if left_out else ''))

  return labelled(), left_out


def _of_row(row: Mapping[str, Any], place: str, named: _Columns,
            neutral: float | None) -> list[Record | str]:
  """The records of a row, or reasons of LEFT_OUT, by the form that it has."""
  if isinstance(row.get('label'), Mapping):
    return _prm800k(row, place, neutral)
  if 'input' in row and isinstance(row.get('label'), str):
    return [_math_shepherd(row, place)]
  prompt, steps = named.prompt.read(row, place), _STEPS.read(row, place)
  if named.labels.given is None and 'labels' not in row and 'label' in row:
    labels = _until_first_error(_FIRST_ERROR.read(row, place), steps, place)
  else:
    labels = named.labels.read(row, place)
  if len(labels) != len(steps):
    raise named.labels.refused(
        place, f'as many labels as the {len(steps)} steps', labels)
  return [dict(prompt=prompt, steps=steps, labels=labels)]


def _until_first_error(first: int, steps: list[str], place: str
                       ) -> list[float | None]:
  """ProcessBench's: right steps, the wrong one, and no label after it."""
  if not -1 <= first < len(steps):
    raise _FIRST_ERROR.refused(
        place, f'-1, or the index of one of the {len(steps)} steps', first)
  return [1. if first < 0 or n < first else 0. if n == first else None
          for n in range(len(steps))]


def _prm800k(row: Mapping[str, Any], place: str, neutral: float | None
             ) -> list[Record | str]:
  """PRM800K's chosen steps, and a record for each other completion."""
  prompt = columns.Column(columns.prompt, ('question.problem',)).read(
      row, place)
  if row['label'].get('finish_reason') in ('bad_problem', 'give_up'):
    return ['given_up']
  value_of = {1: 1., 0: neutral, -1: 0., None: None}
  texts, labels, records = [], [], []
  for step in columns.Column(
      columns.objects, ('label.steps',)).read(row, place):
    choices = columns.Column(columns.objects, ('completions',)).read(
        {'completions': step.get('completions') or []}, place)
    chosen = step.get('chosen_completion')
    for number, choice in enumerate(choices):
      text = _TEXT.read(choice, place)
      rating = columns.Column(_rating, ('rating',)).read(
          {'rating': None, **choice}, place)
      if number == chosen:
        kept = text, value_of[rating]
      elif not text.strip():
        records.append('blank')
      else:
        records.append(dict(
            prompt=prompt, steps=[*texts, text],
            labels=[None] * len(texts) + [value_of[rating]]))
    if chosen is None:
      human = step.get('human_completion')
      if human is None:
        break  # labelling ended here
      kept = _TEXT.read(human if isinstance(human, Mapping) else {
          'text': human}, place), None
    elif chosen not in range(len(choices)):
      raise errors.ConfigError(
          'data.task', f'{place}: expected the index of one of the '
          f"{len(choices)} completions in 'chosen_completion', received "
          f'{columns.shown(chosen)}')
    if not kept[0].strip():
      records.append('blank')
      break  # what follows was rated after no step
    texts.append(kept[0])
    labels.append(kept[1])
  return ([dict(prompt=prompt, steps=texts, labels=labels)] if texts else []
          ) + records


def _math_shepherd(row: Mapping[str, Any], place: str) -> Record:
  """Math-Shepherd's steps: 'Step 1: ... ки' is labelled 'Step 1: ... +'."""
  text, marked = (columns.Column(columns.filled, (name,)).read(row, place)
                  for name in ('input', 'label'))
  before, first, rest = text.partition('Step 1:')
  steps = [step for step in (first + rest).split(_SHEPHERD) if step.strip()]
  pattern = r'\s*([+-])'.join(re.escape(part.rstrip())
                              for part in text.split(_SHEPHERD)[:-1])
  match = re.match(pattern + r'\s*([+-])\s*\Z', marked)
  if not (first and before.strip() and match
          and len(steps) == len(match.groups())):
    raise errors.ConfigError(
        'data.task', f"{place}: expected a question, 'Step 1:' and steps that "
        f"each end in '{_SHEPHERD}' in 'input', and the same text with + or - "
        f"for each in 'label', received {columns.shown(marked)}")
  return dict(prompt=before.strip(), steps=[step.strip() for step in steps],
              labels=[float(mark == '+') for mark in match.groups()])


def _labels(value: Any) -> list[float | None]:
  """Numbers from 0 to 1; None, NaN and -100 are no label."""
  if not isinstance(value, list | tuple | np.ndarray) or not len(value):
    raise columns.Wrong('a label for each step', value)
  return list(map(_label, value))


def _label(value: Any) -> float | None:
  if type(value) in (int, float) and 0 <= value <= 1:  # nearly all
    return float(value)
  if value is None or isinstance(value, bool | np.bool_):
    return None if value is None else float(value)
  if isinstance(value, float | np.floating) and math.isnan(value):
    return None
  if columns.number(value) == IGNORED:
    return None
  if not 0 <= value <= 1:
    raise columns.Wrong(
        'labels from 0 to 1, or none (null, NaN or -100)', value)
  return float(value)


def _rating(value: Any) -> int | None:
  if value is not None and (type(value) is not int or abs(value) > 1):
    raise columns.Wrong('a rating of -1, 0 or 1', value)
  return value


def _index(value: Any) -> int:
  if isinstance(value, bool) or not isinstance(value, int):
    raise columns.Wrong('the index of the first wrong step', value)
  return value


_STEPS = columns.Column(functools.partial(columns.texts, each=columns.filled),
                        ('steps', 'completions'))
_TEXT = columns.Column(columns.text, ('text',))
_FIRST_ERROR = columns.Column(_index, ('label',))


def first_error(labels: Sequence[float | None]) -> int:
  """The index of the first step that is more wrong than right; -1: none."""
  return next((n for n, label in enumerate(labels)
               if label is not None and label < .5), -1)


###############################################################################
# Tokens
###############################################################################


def written(write: templates.Write, record: Record) -> list[pieces.Piece]:
  """The pieces of a record: its prompt, and each step."""
  with errors.at(record['place']):
    return write(record['prompt'], record['steps'])


def take(encoded: graded.Encoded, made: graded.Builder, length: int,
         max_len: int | None = None) -> graded.Counts:
  """Adds records with the ids of their pieces to `made`; counts the others.

  A response of more than `length` or `max_len` tokens is left out. The grade of
  a step is its label.

  Raises:
    ConfigError: no record is left.
  """
  too_long = []
  for record, _, ids, sizes in encoded:
    if len(ids) > min(length, max_len or length):
      too_long.append(len(ids))
    else:
      made.add(record, ids, sizes, [math.nan if label is None else label
                                    for label in record['labels']])
  if not made:
    raise errors.expected(
        'preference.length', f'at least {min(too_long)}, the tokens of the '
        'shortest response with its prompt', length)
  return collections.Counter(too_long=len(too_long))
