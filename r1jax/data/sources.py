"""Where prompts and documents come from: files, reasoning_gym, the mini world.

A task's name says which source and what of it: 'mini_reasoning',
'jsonl:/data/gsm8k/{split}.jsonl', 'reasoning_gym:chain_sum'. A source of
prompts leaves records, of documents texts, of conversations their messages; in
an order that is a function of the arguments alone. A record is a dict of
    prompt    the question, before any template
    answer    the reference answer
    task      the name of what it came from
    verifier  'math', 'reasoning_gym' or 'exact': the rule that scores it
    entry     the whole reasoning_gym entry, where the verifier needs it
    alternatives  further right answers, where the reference lists several
"""

from collections.abc import Iterable
import inspect
import json
import pathlib
from typing import Any

from r1jax import config as config_lib
from r1jax.data import gym
from r1jax.data import mini
from r1jax.data import names

Record = dict[str, Any]

VERIFIERS = ('math', 'exact')  # those that need no more than an answer

_QUESTIONS = ('prompt', 'question', 'problem')  # fields tried in this order


def mini_reasoning(argument: str, split: str, seed: int, count: int | None, *,
                   size: int | None = None,
                   tasks: str | Iterable[str] = mini.TASKS) -> list[Record]:
  """Problems of the mini world with a rule to check them by."""
  del argument
  names.check(names.SPLIT, split, ('train', 'heldout'))
  tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
  for task in tasks:
    names.check('config.data.options.tasks', task, mini.TASKS)
  size = _size(size, count)
  try:
    return mini.records(split, size, seed, tasks)
  except ValueError as e:
    raise config_lib.ConfigError(
        f'config.data.num_prompts (or config.eval.problems): {e}') from e


def mini_corpus(argument: str, split: str, seed: int, count: int | None, *,
                size: int | None = None) -> list[str]:
  """The mini world's base corpus."""
  del argument
  names.check(names.SPLIT, split, ('train',))
  return mini.documents(_size(size, count), seed)


def reasoning_gym(argument: str, split: str, seed: int, count: int | None, *,
                  size: int | None = None, **config: Any) -> list[Record]:
  """Problems of the reasoning_gym dataset `argument`, set by `config`."""
  return [
      dict(prompt=entry['question'], answer=entry['answer'] or '',
           task=argument, verifier='reasoning_gym', entry=entry)
      for entry in gym.entries(
          argument, split, seed, _size(size, count), config)]


def jsonl(argument: str, split: str, seed: int, count: int | None, *,
          prompt: str | None = None, answer: str = 'answer',
          task: str | None = None, verifier: str = 'math') -> list[Record]:
  """A file of one JSON object a line; the options name its fields."""
  del seed, count
  names.check('config.data.options.verifier', verifier, VERIFIERS)
  path = _file(argument, split)
  if task is None:
    task = path.parent.name if path.stem == split else path.stem
  found = []
  for number, row in enumerate(_rows(path), 1):
    place = f'{path}:{number}'
    question = prompt or next((k for k in _QUESTIONS if k in row), 'prompt')
    found.append(record(_field(row, 'prompt', question, place),
                        _field(row, 'answer', answer, place), task, verifier))
  return found


def jsonl_texts(argument: str, split: str, seed: int, count: int | None, *,
                text: str = 'text') -> list[str]:
  """The documents of a file of one JSON object a line."""
  del seed, count
  path = _file(argument, split)
  return [_field(row, 'text', text, f'{path}:{number}')
          for number, row in enumerate(_rows(path), 1)]


def jsonl_conversations(argument: str, split: str, seed: int,
                        count: int | None, *, messages: str = 'messages',
                        prompt: str | None = None, answer: str = 'answer'
                       ) -> list[list[dict[str, Any]]]:
  """The conversations of a file of one JSON object a line.

  A line has messages ([{'role': 'user', 'content': ...}, ...]), or a question
  and its answer.
  """
  del seed, count
  path = _file(argument, split)
  found = []
  for number, row in enumerate(_rows(path), 1):
    place = f'{path}:{number}'
    if messages in row:
      found.append(row[messages])
      continue
    question = prompt or next((k for k in _QUESTIONS if k in row), 'prompt')
    found.append([
        {'role': 'user', 'content': _field(row, 'prompt', question, place)},
        {'role': 'assistant', 'content': _field(row, 'answer', answer, place)}])
  return found


PROMPTS = {'mini_reasoning': mini_reasoning, 'jsonl': jsonl,
           'reasoning_gym': reasoning_gym}
DOCUMENTS = {'mini_corpus': mini_corpus, 'jsonl': jsonl_texts}
CONVERSATIONS = {'jsonl': jsonl_conversations}


def record(prompt: str, answer: Any, task: str, verifier: str) -> Record:
  """Makes a record, with the reference answer reduced to what is compared."""
  if isinstance(answer, list):
    first, *others = map(reduced, answer)
    made = dict(prompt=prompt, answer=first, task=task, verifier=verifier)
    return {**made, 'alternatives': others} if others else made
  return dict(
      prompt=prompt, answer=reduced(answer), task=task, verifier=verifier)


def reduced(answer: str | int | float) -> str:
  """GSM8K's 'so 48+24=72\\n#### 1,072' -> '1072'; 142.0 -> '142'."""
  if isinstance(answer, float) and answer.is_integer():
    answer = int(answer)
  _, mark, last = str(answer).rpartition('####')
  return last.strip().replace(',', '') if mark else last.strip()


def parts(task: str | Iterable[tuple[str, float]], options: dict[str, Any]
         ) -> list[tuple[str, float, dict[str, Any]]]:
  """Lists the (name, rate, options) of a task, or of each of a mixture's.

  A mixture's options are named by place, {'0': options, '2': options}: a name
  with a dot in it, as a file's, can be no field of a config.
  """
  if isinstance(task, str):
    return [(task, 1., options)]
  try:
    found = [(str(name), float(rate)) for name, rate in task]
  except (TypeError, ValueError):
    found = []
  if not found:
    raise config_lib.error(
        'data.task', 'the name of a task or a list of (name, rate)', task)
  places = [str(place) for place in range(len(found))]
  for place in options:
    names.check('config.data.options', place, places)
  return [(*part, options.get(place, {}))
          for place, part in zip(places, found)]


def check_options(source: Any, options: dict[str, Any]) -> None:
  """Refuses an option that `source`, a function above, does not take."""
  parameters = inspect.signature(source).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return
  valid = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
  for name in options:
    names.check('config.data.options', name, valid)


def _size(size: int | None, count: int | None) -> int:
  """The number of problems to make: the option's, else as many as asked."""
  number = count if size is None else size
  if not isinstance(number, int) or number < 1:
    raise config_lib.error(
        'data.options.size', 'a number: this task generates its data', number)
  return number


def _file(argument: str, split: str) -> pathlib.Path:
  """The file of a split: '{split}' in a path stands for the split's name."""
  path = pathlib.Path(argument.replace('{split}', split))
  if '{split}' not in argument and split != 'train':
    raise config_lib.ConfigError(
        f"{names.SPLIT}: jsonl:{argument} is one file, of split 'train'; "
        f"received {split!r}; write '{{split}}' in the path to name a file of "
        'each split')
  if not path.is_file():
    raise config_lib.ConfigError(f'config.data.task: no such file: {path}')
  return path


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  rows = []
  with path.open(encoding='utf-8') as lines:
    for number, line in enumerate(lines, 1):
      try:
        rows.append(dict(json.loads(line)))
      except (TypeError, ValueError) as e:
        raise config_lib.ConfigError(
            f'config.data.task: {path}:{number}: not a JSON object: {e}') from e
  return rows


def _field(row: dict[str, Any], option: str, name: str, place: str) -> Any:
  if name not in row:
    raise config_lib.ConfigError(
        f'config.data.options.{option}: {place} has no field {name!r}, only '
        f'{sorted(row)}')
  return row[name]
