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
    verifier  'math', 'choice' (multiple choice), 'instructions' (IFEval's),
              'reasoning_gym', 'code', 'exact', 'same' (as a draft), 'taste',
              'refusal' or 'repair' (of the mini world): the rule that scores
              it; or 'judge', where only a model can check it
    row       all fields of the line of a file, or of what a function yielded
    shown     the text that the model is given, where it is not the prompt
    source    where it comes from, as rejection sampling notes it
    entry     the whole reasoning_gym entry, where the verifier needs it
    question  the problem alone, where the prompt also says how to answer
    options   the texts of a multiple choice, in order
    instructions  (kind, arguments) of each instruction in the prompt
    tests     of a program, see rewards/code/unit_tests.py
    alternatives  further right answers, where the reference lists several
    opened    true where the prompt, in its template, opens the thinking
    tolerance  relative, by which decimals may differ from the answer

A user's function yields dicts with the fields of a JSONL line, 'prompt' and
'answer' (optionally 'task' and 'verifier'), or 'messages', or 'text'. It is
called with those of `split`, `seed` and `count` that it has as parameters, and
with config.data.options:

    def function(split, seed, count, **options): ...

Without a parameter `split`, a hash of the prompt holds out one record in eight.
"""

from collections.abc import (
    Callable, Collection, Iterable, Iterator, Mapping, Sequence)
import inspect
import math
import os
import re
from typing import Any

from r1jax import errors
from r1jax.data import code_tasks
from r1jax.data import columns
from r1jax.data import gym
from r1jax.data import json_lines
from r1jax.data import spoken
from r1jax.data import suites
from r1jax.data import user_code
from r1jax.mini import sources
from r1jax.rewards import accuracy
from r1jax.rewards import answers

Record = dict[str, Any]

VERIFIERS = tuple(name for name, verifier in accuracy.VERIFIERS.items()
                  if verifier.reference == 'answer')  # of any question

USER = 'FILE.py'  # the key of users' functions in the tables of sources

# 1,072 alone, or with a sign, a currency and a unit; not (2, 3) or 1,3,5.
_THOUSANDS = re.compile(
    r'(?:\w+ ?= ?)?[-+\u2212]?\s*\\?[$\u20ac\u00a3]?\s*'
    r'[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?![\d,])[^\d,()\[\]{}<>|\\]*')


def reasoning_gym(argument: str, split: str, seed: int, count: int | None, *,
                  size: int | None = None, **config: Any) -> list[Record]:
  """Problems of the reasoning_gym dataset `argument`, set up by `config`."""
  return [
      dict(prompt=entry['question'], answer=entry['answer'] or '',
           task=argument, verifier='reasoning_gym', entry=entry)
      for entry in gym.generate(
          argument, split, seed, sources.made(size, count), config)]


def jsonl(argument: str, split: str, seed: int, count: int | None, *,
          prompt: str | None = None, input: str | None = None,
          answer: str | None = None, extract: str | None = None,
          task: str | None = None, verifier: str = 'math',
          tolerance: float = 0.) -> Iterator[Record]:
  """The records of a file, one at a time.

  The options name its columns (`input`: a text put after the prompt), their
  task and verifier; with `extract` 'boxed' an answer is the last \\boxed{...}
  of a solution. Decimals may differ from the answer by `tolerance`, relative,
  which a row's column of that name overrides.
  """
  del seed, count
  try:
    columns.tolerance(tolerance)
  except columns.Wrong as wrong:
    raise errors.expected(
        'data.options.tolerance', wrong.expected, tolerance) from wrong
  errors.check_choice('data.options.verifier', verifier, VERIFIERS)
  task = json_lines.title(argument, split, task)
  pair = columns.named_pair(columns.question, answer_type(extract), prompt,
                            input, answer, ('answer',))
  return (checked_record(pair, row, place, task, verifier, tolerance)
          for place, row in json_lines.stream_rows(argument, split))


def answer_type(extract: str | None) -> columns.Type:
  """The type of reference answers; `extract` 'boxed': within solutions."""
  if extract is None:
    return columns.reference
  errors.check_choice('data.options.extract', extract, ('boxed',))
  return _boxed


def _boxed(value: Any) -> str:
  """The content of the last \\boxed{...} of a solution."""
  found = answers.extract_answer(columns.text(value), 'boxed')
  if found is None:
    raise columns.Wrong(r'a solution with \boxed{...}', value[-60:])
  return found


def jsonl_texts(argument: str, split: str, seed: int, count: int | None, *,
                text: str | None = None) -> Iterator[str]:
  """The documents of a file, one at a time."""
  del seed, count
  column = columns.Column(columns.text, ('text',), 'text', text)
  return (column.read(row, place)
          for place, row in json_lines.stream_rows(argument, split))


class Conversation(list):
  """Messages; `place` is where they come from, for errors."""
  place = ''


def jsonl_conversations(
    argument: str, split: str, seed: int, count: int | None, *,
    messages: str | None = None, prompt: str | None = None,
    input: str | None = None, answer: str | None = None
) -> Iterator[Conversation]:
  """The conversations of a file, one at a time.

  A row has messages ([{'role': 'user', 'content': ...}, ...], or ShareGPT's),
  or a question (prompt, question or problem) and its answer (response or
  answer).
  """
  del seed, count
  # What is put after a prompt needs one that is text.
  asked = columns.prompt if input is None else columns.question
  return _conversations(
      json_lines.stream_rows(argument, split),
      columns.Column(columns.conversation, ('messages',), 'messages', messages),
      columns.named_pair(asked, columns.text, prompt, input, answer))


def _conversations(rows: Iterable[json_lines.Row], talk: columns.Column,
                   pair: columns.Pair) -> Iterator[Conversation]:
  for place, row in rows:
    if talk.given is not None or talk.name(row) is not None:
      said = talk.read(row, place)
    else:
      question, reply = pair.read(row, place)
      said = sources.conversation((question, reply))
      if not isinstance(question, str):
        said = [*question, said[-1]]
    made = Conversation(said)
    made.place = place
    yield made


def user_records(place: str, split: str, seed: int, count: int | None,
                 **options: Any) -> list[Record]:
  """The records that a user's function yields."""
  pair = columns.usual_pair(columns.question, columns.reference)
  records = []
  for at, row in user_code.rows(place, split, seed, count, options):
    task, verifier = (
        known if row.get(name) is None else columns.Column(
            columns.filled, (name,)).read(row, at)
        for name, known in (('task', place.rpartition(':')[2]),
                            ('verifier', 'math')))
    with errors.at(at):
      errors.check_choice('data.task', verifier, VERIFIERS)
    records.append(checked_record(pair, row, at, task, verifier))
    columns.pickled(row, at)  # as it is kept
  return records


def user_texts(place: str, split: str, seed: int, count: int | None,
               **options: Any) -> list[str]:
  """The documents that a user's function yields, as text or {'text': ...}."""
  column = columns.Column(columns.text, ('text',))
  return [column.read(row, at)
          for at, row in user_code.rows(place, split, seed, count, options)]


def user_conversations(place: str, split: str, seed: int, count: int | None,
                       **options: Any) -> Iterator[Conversation]:
  """The conversations that a user's function yields."""
  return _conversations(
      user_code.rows(place, split, seed, count, options),
      columns.Column(columns.conversation, ('messages',)),
      columns.usual_pair(columns.prompt, columns.text))


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
  pairs = map(_question_and_answer, CONVERSATIONS[kind](
      argument, split, seed, count, **options))
  return [dict(prompt=prompt, response=response, task=task)
          for prompt, response in pairs]


def _answered_lines(argument: str, split: str, *, prompt: str | None = None,
                    input: str | None = None, answer: str | None = None
                    ) -> list[Record]:
  """`answered` of a file; the options name its columns."""
  records, title = [], json_lines.title(argument, split)
  pair = columns.named_pair(
      columns.question, columns.filled, prompt, input, answer)
  names = columns.Column(columns.filled, ('task',))
  origin = columns.Column(columns.json_value, ('source',))
  for place, row in json_lines.read_rows(argument, split):
    question, reply = pair.read(row, place)
    task = title if row.get('task') is None else names.read(row, place)
    source = {'source': origin.read(row, place)} if 'source' in row else {}
    records.append(dict(prompt=question, response=reply, task=task) | source)
  return records


def _question_and_answer(messages: Sequence[Mapping[str, Any]]
                         ) -> tuple[str, str]:
  """(question, answer) of a conversation of just these two, which are text."""
  if (found := spoken.pair(messages)) is not None:
    return found
  roles = [message['role'] for message in messages]
  with errors.at(getattr(messages, 'place', '')):
    raise errors.ConfigError(
        'data.task', 'expected a question and its answer, two texts; received '
        f'messages of {", ".join(roles)}')


PROMPTS = {**sources.PROMPTS, **suites.PROMPTS, **code_tasks.PROMPTS,
           'jsonl': jsonl, 'drafts': drafts, 'reasoning_gym': reasoning_gym,
           USER: user_records}
DOCUMENTS = {**sources.DOCUMENTS, 'jsonl': jsonl_texts, USER: user_texts}
CONVERSATIONS = {**sources.CONVERSATIONS, 'jsonl': jsonl_conversations,
                 USER: user_conversations}

# Sources whose argument is a path.
FILES = ('jsonl', *suites.PROMPTS, *code_tasks.PROMPTS)


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
      task.endswith(json_lines.SUFFIXES) or os.path.isfile(task))
  if is_path and 'jsonl' in known:
    raise errors.ConfigError(
        field, f"expected the source of a file, 'jsonl:{task}'; received "
        f'{task!r}')
  errors.check_choice(field, kind, known)
  return kind, argument


def read(readers: Mapping[str, Callable[..., Any]], task: str, split: str,
         options: Mapping[str, Any]) -> Any:
  """What the reader of a task's source, one of `readers`, makes of a split."""
  kind, argument = split_task(str(task), readers)
  check_options(readers[kind], options)
  return readers[kind](argument, split, **options)


def record(prompt: str, answer: Any, task: str, verifier: str) -> Record:
  """Makes a record, with the reference answer reduced to what is compared."""
  if isinstance(answer, list):
    first, *others = map(reduced, answer)
    made = dict(prompt=prompt, answer=first, task=task, verifier=verifier)
    return {**made, 'alternatives': others} if others else made
  return dict(
      prompt=prompt, answer=reduced(answer), task=task, verifier=verifier)


def reduced(answer: Any) -> str:
  """GSM8K's 'so 48+24=72\\n#### 1,072' -> '1072'; 142.0 -> '142'."""
  if not isinstance(answer, str):
    return columns.written(answer)
  _, mark, last = answer.rpartition('####')
  last = last.strip()
  grouped = _THOUSANDS.fullmatch(last) if mark else None
  return last.replace(',', '') if grouped else last


def checked_record(pair: columns.Pair, row: dict[str, Any], place: str,
                   task: str, verifier: str, tolerance: float = 0.) -> Record:
  """The record of a row; an answer may be empty only before a judge."""
  question, reference = pair.read(row, place)
  made = record(question, reference, task, verifier)
  if verifier != 'judge' and not all(
      [made['answer'], *made.get('alternatives', ())]):
    raise pair.answer.refused(
        place, 'an answer that is not empty', reference,
        pair.answer.name(row))
  if row.get('tolerance') is not None:
    tolerance = columns.Column(
        columns.tolerance, ('tolerance',)).read(row, place)
  return made | {'row': row} | ({'tolerance': tolerance} if tolerance else {})


def examples(task: str | None, count: int, seed: int) -> list[tuple[str, str]]:
  """The first `count` of a source of conversations as (question, answer)."""
  if not task:
    raise errors.expected(
        'data.examples', 'a source of conversations, where config.data.shots '
        'is not 0', task)
  with errors.renamed('data.task', to='data.examples'):
    kind, argument = split_task(task, CONVERSATIONS)
    pairs = list(map(_question_and_answer, list(CONVERSATIONS[kind](
        argument, 'train', seed, count))[:count]))
  if len(pairs) < count:
    raise errors.expected(
        'data.shots', f'at most the {len(pairs)} examples of '
        'config.data.examples', count)
  return pairs


def parts(task: str | Iterable[tuple[str, float]], options: dict[str, Any]
          ) -> list[tuple[str, float, dict[str, Any]]]:
  """Lists (name, rate, options) of a task, or of each task of a mixture.

  A mixture's options are keyed by position, {'0': options, '2': options}: a
  task's name may have a dot, which a config field cannot.
  """
  if isinstance(task, str):
    return [(task, 1., options)]
  try:
    tasks = [(name, rate) for name, rate in task]
  except (TypeError, ValueError):
    tasks = []
  if not tasks or not all(
      isinstance(name, str) and type(rate) in (int, float)
      and 0 < rate < math.inf for name, rate in tasks):
    raise errors.expected(
        'data.task', 'the name of a task or a list of (name, rate), each rate '
        'above 0', task)
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
