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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import columns
from r1jax.data import json_lines
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import user_code

Record = dict[str, Any]

Counts = Mapping[str, int]  # by reason

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
    'too_long': 'that exceed config.preference.length with all responses, or '
                "the model's longest sequence with one",
}


def why_left_out(counts: Counts) -> str:
  """The reasons of LEFT_OUT with their counts, as text; '' if all are 0."""
  return '; '.join(f'{counts[reason]} {why}' for reason, why in LEFT_OUT.items()
                   if counts.get(reason))


def jsonl(argument: str, split: str, *, prompt: str | None = None,
          task: str | None = None) -> tuple[list[Record], Counts]:
  """The preferences of a file, in one of three forms.

  {"prompt": ..., "responses": [...], "grades": [...]}; {"prompt": ...,
  "chosen": ..., "rejected": ...}; or that of Anthropic HH, where chosen and
  rejected are whole conversations, "\\n\\nHuman: ...\\n\\nAssistant: ...", that
  differ in the last answer. A prompt may be messages.
  """
  task = json_lines.title(argument, split, task)
  asked = columns.Column(columns.prompt, ('prompt',), 'prompt', prompt)
  return _records(json_lines.read_rows(argument, split), asked, task, argument)


def user_preferences(place: str, split: str, **options: Any
                     ) -> tuple[list[Record], Counts]:
  """The preferences that a user's function yields, in the same forms."""
  return _records(user_code.rows(place, split, None, None, options),
                  columns.Column(columns.prompt, ('prompt',)),
                  place.rpartition(':')[2], place)


SOURCES = {'jsonl': jsonl, sources.USER: user_preferences}


def read_preferences(task: str, split: str, options: dict[str, Any]
                     ) -> tuple[list[Record], Counts]:
  """The records of a task, 'jsonl:PATH' or 'FILE.py:FUNCTION'.

  Returns:
    The records, and how many prompts were left out, by reason (LEFT_OUT).

  Raises:
    ConfigError: names the field of config.data that is wrong.
  """
  return sources.read(SOURCES, task, split, options)


def _records(rows: Sequence[tuple[str, dict[str, Any]]], asked: columns.Column,
             task: str, origin: str) -> tuple[list[Record], Counts]:
  """The records of (place, row); `origin` names the source in errors."""
  records, left_out = [], collections.Counter()
  for place, row in rows:
    record = _record(row, asked, place)
    if isinstance(record, str):
      left_out[record] += 1
    else:
      records.append(record | dict(task=task, place=place))
  if not records:
    raise errors.ConfigError(
        'data.task', f'{origin} has no pairs'
        + (f'; left out: {why_left_out(left_out)}' if left_out else ''))
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


def balance_lengths(records: Sequence[Record]) -> list[Record]:
  """Leaves out records until better responses are as often longer as shorter.

  A reward model then cannot win by length (R1 balances its pairs likewise,
  arXiv 2501.12948v2, 3.1). Records are binned by the difference in characters,
  in factors of 2; in each bin the surplus of the more frequent sign is left
  out, the last ones first.
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
  """Mean lead of the better response over the worse, in characters."""
  length = [len(text) for text in record['responses']]
  pairs = [n - m for n, g in zip(length, record['grades'])
           for m, h in zip(length, record['grades']) if g > h]
  return float(np.mean(pairs)) if pairs else 0.


class Batch(NamedTuple):
  """Packed rows, the fields of types.Preferences."""
  tokens: np.ndarray  # i32[B, T]
  segment: np.ndarray  # i32[B, T], parent + 1 + k in response k
  parent: np.ndarray  # i32[B, T], (1 + s) (1 + K) in prompt s and its responses
  position: np.ndarray  # i32[B, T], continues from the prompt in each response
  end: np.ndarray  # i32[B, S, K], index in T of a response's last token
  grade: np.ndarray  # f32[B, S, K]
  real: np.ndarray  # bool[B, S, K], false where there is no such response


class Rows(NamedTuple):
  """Prompts with their responses, laid out in rows."""
  packed: batches.Packed  # a document is a prompt and its responses
  part: np.ndarray  # i32[all], of packed.tokens: 0 prompt, 1 + k response k
  position: np.ndarray  # i32[all], continues from the prompt in each response
  piece: np.ndarray  # i64[rows, S], the pieces of each row; -1: none
  end: np.ndarray  # i64[M, K], of each response's last token in its document
  grade: np.ndarray  # f32[M, K]
  real: np.ndarray  # bool[M, K]
  records: Sequence[Record]  # M
  counts: Counts  # prompts, and those left out: too_long, identical

  @property
  def size(self) -> int:
    return len(self.piece)

  def batch(self, step: int, rows: int, seed: int) -> Batch:
    """The `rows` rows of `step`, counted from 0."""
    if rows > self.size:
      raise errors.expected(
          'preference.batch', f'at most the {self.size} rows that the '
          f'{len(self.records)} prompts fill', rows)
    return self.take(self.packed.draw(step, rows, seed))

  def take(self, row: np.ndarray) -> Batch:
    """The rows numbered `row`, i64[B]."""
    filled = self.packed.take(row)
    piece_BS = self.piece[row]
    record_BS = self.packed.document[piece_BS]
    end_BSK = self.packed.column[piece_BS][..., None] + self.end[record_BS]
    real_BSK = self.real[record_BS] & (piece_BS >= 0)[..., None]
    each = lambda values: self.packed._replace(tokens=values).take(row).tokens
    parent_BT = filled.segment * (1 + self.end.shape[1])
    return Batch(
        filled.tokens, parent_BT + each(self.part), parent_BT,
        each(self.position), np.where(real_BSK, end_BSK, 0).astype(np.int32),
        np.where(real_BSK, self.grade[record_BS], 0).astype(np.float32),
        real_BSK)

  def record(self, row: np.ndarray) -> np.ndarray:
    """The record at each place of the rows, i64[B, S]; -1: none."""
    piece_BS = self.piece[row]
    return np.where(piece_BS >= 0, self.packed.document[piece_BS], -1)


def pack(records: Sequence[Record], encode: templates.Encode,
         length: int, max_len: int | None = None, count: int | None = None
        ) -> Rows:
  """Lays records out in rows of `length` tokens.

  A prompt is left out and counted if with all its responses it exceeds
  `length`, or with one of them `max_len`, the model's longest sequence; or if
  two responses of unlike grades are the same tokens. With `count`, packing
  stops once so many records fit.

  Raises:
    ConfigError: no record is left.
  """
  documents, parts, positions, ends, kept = [], [], [], [], []
  left_out = collections.Counter(too_long=0, identical=0)
  shortest = np.inf
  for record in records:
    if len(kept) == count:
      break
    with errors.at(record.get('place', '')):
      prompts, answers = zip(*(
          encode(record['prompt'], text) for text in record['responses']))
    prompt, sizes = prompts[0], np.array([len(tokens) for tokens in answers])
    size = len(prompt) + sizes.sum()
    if contradicts([*map(tuple, answers)], record['grades']):
      left_out['identical'] += 1
    elif size <= length and len(prompt) + sizes.max() <= (max_len or length):
      documents.append(sum(answers, list(prompt)))
      parts.append(np.repeat(np.arange(1 + len(sizes)), [len(prompt), *sizes]))
      positions += [np.arange(len(prompt)), *(
          len(prompt) + np.arange(n) for n in sizes)]
      ends.append(len(prompt) + np.cumsum(sizes) - 1)
      kept.append({name: record[name] for name in record if name != 'place'})
    else:
      left_out['too_long'] += 1
      shortest = min(size, shortest)
  if not kept and left_out['too_long']:
    raise errors.expected(
        'preference.length', f'at least {shortest}, the tokens of the '
        'shortest prompt with its responses', length)
  if not kept:
    raise errors.ConfigError(
        'data.task', f'no prompts; left out: {why_left_out(left_out)}')
  width = max(map(len, ends))
  pad = lambda rows, dtype: np.array(
      [list(row) + [0] * (width - len(row)) for row in rows], dtype)
  return lay_out(
      documents, parts, positions, length, pad(ends, np.int64),
      pad([record['grades'] for record in kept], np.float32),
      pad([[True] * len(end) for end in ends], bool), kept,
      {'prompts': len(kept), **left_out})


def lay_out(documents: Sequence[Sequence[int]], parts: Sequence[np.ndarray],
            positions: Sequence[np.ndarray], length: int, end: np.ndarray,
            grade: np.ndarray, real: np.ndarray, records: Sequence[Record],
            counts: Counts) -> Rows:
  """Puts M documents into rows of `length` tokens.

  Args:
    documents: the tokens of each record, all of them.
    parts, positions: of all tokens, as in Rows, in pieces.
    length: of a row.
    end, grade, real, records, counts: as in Rows.
  """
  packed = batches.packed(documents, length)
  count = np.diff(packed.first)
  nth = np.arange(count.max())
  piece = np.where(nth < count[:, None], packed.first[:-1, None] + nth, -1)
  flat = lambda pieces: np.concatenate(pieces).astype(np.int32)
  return Rows(packed, flat(parts), flat(positions), piece, end, grade, real,
              records, counts)
