"""Sources of data: files, reasoning_gym, the mini world, the user's functions.

A task names a source and its argument: 'mini_reasoning',
'jsonl:/data/gsm8k/{split}.jsonl', 'reasoning_gym:chain_sum',
'my_data.py:function'. A source of prompts returns records, one of documents
texts, one of conversations lists of messages, in an order that is a function of
its arguments alone. To add one: a function, and its line in a table below. A
record is a dict of
    prompt    the question, before any template
    answer    the reference answer
    task      the name of what it came from
    verifier  'math', 'reasoning_gym', 'exact', 'same' (as a draft), 'taste' or
              'refusal' (of the mini world): the rule that scores it; or
              'judge', where only a model can check it
    row       all fields of the line of a file, or of what a function yielded
    shown     the text that the model is given, where it is not the prompt
    source    where it comes from, as rejection sampling notes it
    entry     the whole reasoning_gym entry, where the verifier needs it
    alternatives  further right answers, where the reference lists several

A user's function yields dicts with the fields of a JSONL line, 'prompt' and
'answer' (optionally 'task' and 'verifier'), or 'messages', or 'text'. It is
called with those of `split`, `seed` and `count` that it has as parameters, and
with config.data.options:

    def function(split, seed, count, **options): ...

Without a parameter `split`, a hash of the prompt holds out one record in eight.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
import inspect
import itertools
import os
from typing import Any

from r1jax import errors
from r1jax.data import chat
from r1jax.data import gym
from r1jax.data import json_lines
from r1jax.data import splits
from r1jax.data import user_code
from r1jax.mini import sources
from r1jax.rewards import accuracy

Record = dict[str, Any]

VERIFIERS = tuple(name for name, verifier in accuracy.VERIFIERS.items()
                  if verifier.reference == 'answer')  # of any question

USER = 'FILE.py'  # the key of users' functions in the tables of sources
_Rows = list[tuple[str, dict[str, Any]]]  # with the place of each, for errors

_QUESTIONS = ('prompt', 'question', 'problem')  # fields tried in this order
_ANSWERS = ('response', 'answer')


def reasoning_gym(argument: str, split: str, seed: int, count: int | None, *,
                  size: int | None = None, **config: Any) -> list[Record]:
  """Problems of the reasoning_gym dataset `argument`, set up by `config`."""
  return [
      dict(prompt=entry['question'], answer=entry['answer'] or '',
           task=argument, verifier='reasoning_gym', entry=entry)
      for entry in gym.generate(
          argument, split, seed, sources.made(size, count), config)]


def jsonl(argument: str, split: str, seed: int, count: int | None, *,
          prompt: str | None = None, answer: str = 'answer',
          task: str | None = None, verifier: str = 'math') -> list[Record]:
  """The records of a JSONL file; the options name its fields."""
  del seed, count
  errors.check_choice('data.options.verifier', verifier, VERIFIERS)
  records = []
  if task is None:
    task = json_lines.title(argument, split)
  for place, row in json_lines.read_rows(argument, split):
    question, reference = _pair(row, prompt, answer, place)
    records.append(record(question, reference, task, verifier) | {'row': row})
  return records


def jsonl_texts(argument: str, split: str, seed: int, count: int | None, *,
                text: str = 'text') -> list[str]:
  """The documents of a JSONL file."""
  del seed, count
  return [json_lines.field(row, 'text', text, place)
          for place, row in json_lines.read_rows(argument, split)]


def jsonl_conversations(argument: str, split: str, seed: int,
                        count: int | None, *, messages: str = 'messages',
                        prompt: str | None = None, answer: str | None = None
                        ) -> list[list[dict[str, Any]]]:
  """The conversations of a JSONL file.

  A line has messages ([{'role': 'user', 'content': ...}, ...]), or a question
  (prompt, question or problem) and its answer (response or answer).
  """
  del seed, count
  return _conversations(
      json_lines.read_rows(argument, split), messages, prompt, answer)


def _conversations(rows: _Rows, messages: str, prompt: str | None,
                   answer: str | None) -> list[list[dict[str, Any]]]:
  return [row[messages] if messages in row else
          sources.conversation(_pair(row, prompt, answer, place))
          for place, row in rows]


def user_records(place: str, split: str, seed: int, count: int | None,
                 **options: Any) -> list[Record]:
  """The records that a user's function yields."""
  records = []
  for at, row in user_rows(place, split, seed, count, options):
    question, reference = _pair(row, None, None, at)
    if not isinstance(question, str):
      raise errors.ConfigError('data.task', f'{at}: expected a text as its '
                               f'prompt, received {question!r:.80}')
    verifier = row.get('verifier', 'math')
    errors.check_choice(f'data.task ({at} verifier)', verifier, VERIFIERS)
    task = str(row.get('task', place.rpartition(':')[2]))
    records.append(record(question, reference, task, verifier) | {'row': row})
  return records


def user_texts(place: str, split: str, seed: int, count: int | None,
               **options: Any) -> list[str]:
  """The documents that a user's function yields, as text or {'text': ...}."""
  return [json_lines.field(row, 'text', 'text', at)
          for at, row in user_rows(place, split, seed, count, options)]


def user_conversations(place: str, split: str, seed: int, count: int | None,
                       **options: Any) -> list[list[dict[str, Any]]]:
  """The conversations that a user's function yields."""
  return _conversations(user_rows(place, split, seed, count, options),
                        'messages', None, None)


def user_rows(place: str, split: str, seed: int | None, count: int | None,
              options: Mapping[str, Any]) -> _Rows:
  """(place, dict) of what a user's function yields, at most `count`.

  Raises:
    ConfigError: there is no such function, it does not take an option, or it
      yields something else.
  """
  function = user_code.load(place, 'data.task')
  parameters = inspect.signature(function).parameters.values()
  names = [parameter.name for parameter in parameters]
  known = dict(split=split, seed=seed, count=count)
  if not any(p.kind is p.VAR_KEYWORD for p in parameters):
    for name in options:
      errors.check_choice(
          'data.options', name, [n for n in names if n not in known])
  known = {name: value for name, value in known.items() if name in names}
  try:
    inspect.signature(function).bind(**known, **options)
  except TypeError as problem:
    raise errors.ConfigError(
        'data.options', f'{place}: {problem}') from problem
  rows = _dicts(function(**known, **options), place)
  if 'split' not in known:
    rows = ((at, row) for at, row in rows if splits.in_split(
        str(next((row[name] for name in (*_QUESTIONS, 'messages', 'text')
                  if name in row), row)), split))
  return list(itertools.islice(rows, count))


def _dicts(rows: Iterable, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
  if not isinstance(rows, Iterable):
    raise errors.ConfigError(
        'data.task', f'{place}: expected dicts, received {rows!r:.80}')
  for number, row in enumerate(rows):
    if isinstance(row, str):
      row = {'text': row}
    if not isinstance(row, Mapping):
      raise errors.ConfigError('data.task', f'{place}: expected dicts, '
                               f'received {row!r:.80}')
    yield f'{place}, number {number},', dict(row)


def _pair(row: dict[str, Any], prompt: str | None, answer: str | None,
          place: str) -> tuple[Any, Any]:
  """The question and the answer of a row, in the fields named or usual ones."""
  names_of = (('prompt', prompt, _QUESTIONS), ('answer', answer, _ANSWERS))
  question, reply = (
      json_lines.field(
          row, option, name or next((k for k in known if k in row), option),
          place) for option, name, known in names_of)
  return question, reply


def drafts(argument: str, split: str, seed: int, count: int | None,
           **options: Any) -> list[Record]:
  """Answers to be rewritten: those of the task `argument`, with its options.

  See `answered`. The model is given the prompt followed by its answer; a
  rewrite is right if it gives the same answer.
  """
  return [row | dict(shown=f'{row["prompt"]}\n{row["response"]}',
                     answer=row['response'], verifier='same')
          for row in answered(argument, split, seed, count, options)]


def answered(task: str, split: str, seed: int, count: int | None,
             options: dict[str, Any]) -> list[Record]:
  """The prompts of a task with a response to each.

  The task's source is one of conversations, such as a file. A record has
  'prompt', 'response', 'task', and 'source' if a file's line has it.
  """
  kind, argument = split_task(task, CONVERSATIONS)
  if kind == 'jsonl':
    check_options(_answered_lines, options)
    return _answered_lines(argument, split, **options)
  check_options(CONVERSATIONS[kind], options)
  pairs = map(chat.question_and_answer, CONVERSATIONS[kind](
      argument, split, seed, count, **options))
  return [dict(prompt=prompt, response=response, task=task)
          for prompt, response in pairs]


def _answered_lines(argument: str, split: str, *, prompt: str | None = None,
                    answer: str | None = None) -> list[Record]:
  """`answered` of a JSONL file; the options name its fields."""
  records, title = [], json_lines.title(argument, split)
  for place, row in json_lines.read_rows(argument, split):
    question, reply = _pair(row, prompt, answer, place)
    made = dict(prompt=question, response=reply, task=row.get('task', title))
    for name, value in made.items():
      if not isinstance(value, str):
        raise errors.ConfigError(
            'data.task', f'{place}: expected a text as its {name}, '
            f'received {value!r:.80}')
    records.append(
        made | ({'source': row['source']} if 'source' in row else {}))
  return records


PROMPTS = {**sources.PROMPTS, 'jsonl': jsonl, 'drafts': drafts,
           'reasoning_gym': reasoning_gym, USER: user_records}
DOCUMENTS = {**sources.DOCUMENTS, 'jsonl': jsonl_texts, USER: user_texts}
CONVERSATIONS = {**sources.CONVERSATIONS, 'jsonl': jsonl_conversations,
                 USER: user_conversations}


def split_task(task: str, known: Collection[str], field: str = 'data.task'
               ) -> tuple[str, str]:
  """A task's source, one of `known`, and its argument.

  Raises:
    ConfigError: there is no such source; names `config.<field>`.
  """
  kind, _, argument = task.partition(':')
  if kind not in known and user_code.is_place(task):
    kind, argument = USER, task
  is_path = kind == task and (
      task.endswith(('.json', '.jsonl', '.gz')) or os.path.isfile(task))
  if is_path and 'jsonl' in known:
    raise errors.ConfigError(
        field, f"expected the source of a file, 'jsonl:{task}'; received "
        f'{task!r}')
  errors.check_choice(field, kind, known)
  return kind, argument


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


def examples(task: str, count: int, seed: int) -> list[tuple[str, str]]:
  """The first `count` of a source of conversations as (question, answer)."""
  kind, argument = split_task(task, CONVERSATIONS, 'data.examples')
  conversations = CONVERSATIONS[kind](argument, 'train', seed, count)
  if len(conversations) < count:
    raise errors.expected(
        'data.shots', f'at most the {len(conversations)} examples of '
        'config.data.examples', count)
  return [chat.question_and_answer(messages)
          for messages in conversations[:count]]


def parts(task: str | Iterable[tuple[str, float]], options: dict[str, Any]
          ) -> list[tuple[str, float, dict[str, Any]]]:
  """Lists (name, rate, options) of a task, or of each task of a mixture.

  A mixture's options are keyed by position, {'0': options, '2': options}: a
  task's name may have a dot, which a config field cannot.
  """
  if isinstance(task, str):
    return [(task, 1., options)]
  try:
    tasks = [(str(name), float(rate)) for name, rate in task]
  except (TypeError, ValueError):
    tasks = []
  if not tasks:
    raise errors.expected(
        'data.task', 'the name of a task or a list of (name, rate)', task)
  places = [str(place) for place in range(len(tasks))]
  for place in options:
    errors.check_choice('data.options', place, places)
  return [(*part, options.get(place, {}))
          for place, part in zip(places, tasks)]


def check_options(source: Any, options: dict[str, Any]) -> None:
  """Refuses an option that `source`, a function above, does not take."""
  parameters = inspect.signature(source).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return
  valid = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
  for name in options:
    errors.check_choice('data.options', name, valid)
