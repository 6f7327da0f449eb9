"""Benchmarks that are not a question and its answer, in their published files.

    gpqa:PATH    gpqa_diamond.csv (arXiv 2311.12022)
    mmlu:PATH    test/*.csv of hendrycks/test (arXiv 2009.03300), or the hub's
                 columns question, choices and answer; MMLU-Pro's question,
                 options and answer (arXiv 2406.01574)
    ifeval:PATH  input_data.jsonl (arXiv 2311.07911)

Every source takes CSV, JSON Lines, an array of objects and parquet. Multiple
choice is asked in the words of OpenAI's simple-evals, which DeepSeek-R1's
evaluation used (arXiv 2501.12948, 3.1).
"""

from collections.abc import Mapping, Sequence
import random
from typing import Any

from r1jax import errors
from r1jax.data import columns
from r1jax.data import json_lines
from r1jax.rewards import choices
from r1jax.rewards import instructions

Record = dict[str, Any]

_ASKED = (
    'Answer the following multiple choice question. The last line of your '
    "response should be of the following format: 'Answer: $LETTER' (without "
    'quotes) where LETTER is one of {letters}. Think step by step before '
    'answering.\n\n{question}\n\n{options}')
_MMLU = ('question', *'ABCD', 'answer')  # a row without a header

_QUESTION = columns.Column(columns.filled, ('question', 'Question'))


def gpqa(argument: str, split: str, seed: int, count: int | None, *,
         task: str = 'gpqa') -> list[Record]:
  """The questions of a file of GPQA, their options shuffled.

  The order is a function of the seed and the question alone, whatever the
  file's order: the right letter is uniform. `task` is the name of the records.
  """
  del count
  right = columns.Column(columns.filled, ('Correct Answer',))
  wrong = [columns.Column(columns.filled, (f'Incorrect Answer {n}',))
           for n in (1, 2, 3)]
  task, records = json_lines.title(argument, split, task), []
  for place, row in json_lines.read_rows(argument, split):
    question = _QUESTION.read(row, place)
    options = [column.read(row, place).strip() for column in (right, *wrong)]
    records.append(_shuffled(question, options, 0, seed) | dict(
        task=task, row=row))
  return records


def mmlu(argument: str, split: str, seed: int, count: int | None, *,
         task: str = 'mmlu', header: bool = False, shuffle: bool = False
        ) -> list[Record]:
  """The questions of a file of MMLU or MMLU-Pro.

  Args:
    argument, split, seed, count: see data/sources.py.
    task: the name of the records.
    header: whether a CSV file's first row names its columns (question, A to D,
      answer); those of hendrycks/test have none.
    shuffle: whether the options are shuffled, as GPQA's are.
  """
  del count
  for name, value in dict(header=header, shuffle=shuffle).items():
    if not isinstance(value, bool):
      raise errors.expected(f'data.options.{name}', 'True or False', value)
  task, records = json_lines.title(argument, split, task), []
  for place, row in json_lines.read_rows(
      argument, split, None if header else _MMLU):
    question, options = _QUESTION.read(row, place), _options(row, place)
    number = _number(row, place, len(options))
    made = (_shuffled(question, options, number, seed) if shuffle
            else _asked(question, options, number))
    records.append(made | dict(task=task, row=row))
  return records


def _options(row: Mapping[str, Any], place: str) -> list[str]:
  """The options of a row: one column has them all, or A to D one each."""
  listed = columns.Column(_texts, ('choices', 'options'))
  if listed.name(row) is not None or 'A' not in row:
    return listed.read(row, place)
  return [columns.Column(columns.text, (name,)).read(row, place).strip()
          for name in 'ABCD']


def _texts(value: Any) -> list[str]:
  """Options; there are at least two, and as many as letters at most."""
  if not isinstance(value, list) or not 2 <= len(value) <= len(choices.LETTERS):
    raise columns.Wrong(f'2 to {len(choices.LETTERS)} options', value)
  return [columns.text(each).strip() for each in value]


def _number(row: Mapping[str, Any], place: str, count: int) -> int:
  """The number of the right option, from 0, given as such or as its letter."""
  letters = choices.LETTERS[:count]

  def answer(value: Any) -> int:
    if isinstance(value, str) and len(value.strip()) == 1 and (
        value.strip() in letters):
      return letters.index(value.strip())
    if type(value) is int and 0 <= value < count:
      return value
    raise columns.Wrong(f'a letter of {letters}, or 0 to {count - 1}', value)

  return columns.Column(answer, ('answer', 'Answer')).read(row, place)


def _shuffled(question: str, options: Sequence[str], number: int, seed: int
             ) -> Record:
  order = list(range(len(options)))
  random.Random(f'{seed} {question}').shuffle(order)
  return _asked(question, [options[n] for n in order], order.index(number))


def _asked(question: str, options: Sequence[str], number: int) -> Record:
  letters = choices.LETTERS[:len(options)]
  listed = '\n'.join(map('{}) {}'.format, letters, options))
  return dict(
      prompt=_ASKED.format(
          letters=letters, question=question.strip(), options=listed),
      question=question, answer=letters[number], options=tuple(options),
      verifier='choice')


def ifeval(argument: str, split: str, seed: int, count: int | None, *,
           task: str = 'ifeval') -> list[Record]:
  """The prompts of a file of IFEval, each with the instructions in it.

  `task` is the name of the records.

  Raises:
    ConfigError: an instruction is unknown or lacks an argument; names it.
  """
  del seed, count
  prompt = columns.Column(columns.filled, ('prompt',))
  names = columns.Column(columns.texts, ('instruction_id_list',))
  arguments = columns.Column(columns.objects, ('kwargs',))
  task, records = json_lines.title(argument, split, task), []
  for place, row in json_lines.read_rows(argument, split):
    listed = names.read(row, place)
    given = arguments.read(row, place)
    if len(given) != len(listed):
      raise arguments.refused(
          place, f'an object for each of {len(listed)} instructions', given)
    with errors.at(place):
      asked = [instructions.instruction(name, values)
               for name, values in zip(listed, given)]
    records.append(dict(
        prompt=prompt.read(row, place), answer='', task=task, row=row,
        verifier='instructions', instructions=asked))
  return records


PROMPTS = {f.__name__: f for f in (gpqa, mmlu, ifeval)}
