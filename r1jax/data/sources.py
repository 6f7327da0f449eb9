"""Where prompts and documents come from: files, reasoning_gym, the mini world.

A task's name says which source and what of it: 'mini_reasoning',
'jsonl:/data/gsm8k/{split}.jsonl', 'reasoning_gym:chain_sum'. A source of
prompts leaves records, of documents texts, of conversations their messages; in
an order that is a function of the arguments alone. A record is a dict of
    prompt    the question, before any template
    answer    the reference answer
    task      the name of what it came from
    verifier  'math', 'reasoning_gym', 'exact', 'same' (as a draft), 'taste' or
              'refusal' (of the mini world): the rule that scores it; or
              'judge', where only a model can tell
    shown     what the model reads in place of the prompt, where it is another
    source    where it comes from, as rejection sampling notes it
    entry     the whole reasoning_gym entry, where the verifier needs it
    alternatives  further right answers, where the reference lists several
"""

from collections.abc import Iterable
import inspect
from typing import Any

from r1jax import errors
from r1jax.data import chat
from r1jax.data import gym
from r1jax.data import json_lines
from r1jax.mini import sources
from r1jax.rewards import accuracy

Record = dict[str, Any]

VERIFIERS = tuple(name for name, verifier in accuracy.VERIFIERS.items()
                  if verifier.reference == 'answer')  # of any question

_QUESTIONS = ('prompt', 'question', 'problem')  # fields tried in this order
_ANSWERS = ('response', 'answer')


def reasoning_gym(argument: str, split: str, seed: int, count: int | None, *,
                  size: int | None = None, **config: Any) -> list[Record]:
  """Problems of the reasoning_gym dataset `argument`, set by `config`."""
  return [
      dict(prompt=entry['question'], answer=entry['answer'] or '',
           task=argument, verifier='reasoning_gym', entry=entry)
      for entry in gym.generate(
          argument, split, seed, sources.made(size, count), config)]


def jsonl(argument: str, split: str, seed: int, count: int | None, *,
          prompt: str | None = None, answer: str = 'answer',
          task: str | None = None, verifier: str = 'math') -> list[Record]:
  """A file of one JSON object a line; the options name its fields."""
  del seed, count
  errors.check_choice('data.options.verifier', verifier, VERIFIERS)
  found = []
  if task is None:
    task = json_lines.title(argument, split)
  for place, row in json_lines.read_rows(argument, split):
    question, reference = _pair(row, prompt, answer, place)
    found.append(record(question, reference, task, verifier))
  return found


def jsonl_texts(argument: str, split: str, seed: int, count: int | None, *,
                text: str = 'text') -> list[str]:
  """The documents of a file of one JSON object a line."""
  del seed, count
  return [json_lines.field(row, 'text', text, place)
          for place, row in json_lines.read_rows(argument, split)]


def jsonl_conversations(argument: str, split: str, seed: int,
                        count: int | None, *, messages: str = 'messages',
                        prompt: str | None = None, answer: str | None = None
                       ) -> list[list[dict[str, Any]]]:
  """The conversations of a file of one JSON object a line.

  A line has messages ([{'role': 'user', 'content': ...}, ...]), or a question
  (prompt, question or problem) and its answer (response or answer).
  """
  del seed, count
  found = []
  for place, row in json_lines.read_rows(argument, split):
    if messages in row:
      found.append(row[messages])
      continue
    question, reply = _pair(row, prompt, answer, place)
    found.append(sources.conversation((question, reply)))
  return found


def _pair(row: dict[str, Any], prompt: str | None, answer: str | None,
          place: str) -> tuple[Any, Any]:
  """The question and the answer of a line, by fields named or known."""
  names_of = (('prompt', prompt, _QUESTIONS), ('answer', answer, _ANSWERS))
  question, reply = (
      json_lines.field(
          row, option, name or next((k for k in known if k in row), option),
          place) for option, name, known in names_of)
  return question, reply


def drafts(argument: str, split: str, seed: int, count: int | None,
           **options: Any) -> list[Record]:
  """Answers to be rewritten: those of the task `argument`, with its options.

  See `answered`. The model reads the prompt with its answer behind it; right
  is what says the same.
  """
  return [row | dict(shown=f'{row["prompt"]}\n{row["response"]}',
                     answer=row['response'], verifier='same')
          for row in answered(argument, split, seed, count, options)]


def answered(task: str, split: str, seed: int, count: int | None,
             options: dict[str, Any]) -> list[Record]:
  """The prompts of a task with a response to each.

  Of a source of conversations, files among them; a record has 'prompt',
  'response', 'task', and 'source' where a file's line says where it is from.
  """
  kind, _, argument = task.partition(':')
  errors.check_choice('data.task', kind, CONVERSATIONS)
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
  """Those of a file of one JSON object a line; the options name its fields."""
  found, title = [], json_lines.title(argument, split)
  for place, row in json_lines.read_rows(argument, split):
    question, reply = _pair(row, prompt, answer, place)
    made = dict(prompt=question, response=reply, task=row.get('task', title))
    for name, value in made.items():
      if not isinstance(value, str):
        raise errors.ConfigError(
            f'config.data.task: {place}: expected a text as its {name}, '
            f'received {value!r:.80}')
    found.append(made | {key: row[key] for key in ('source',) if key in row})
  return found


PROMPTS = {**sources.PROMPTS, 'jsonl': jsonl, 'drafts': drafts,
           'reasoning_gym': reasoning_gym}
DOCUMENTS = {**sources.DOCUMENTS, 'jsonl': jsonl_texts}
CONVERSATIONS = {**sources.CONVERSATIONS, 'jsonl': jsonl_conversations}


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
  kind, _, argument = task.partition(':')
  errors.check_choice('data.examples', kind, CONVERSATIONS)
  found = CONVERSATIONS[kind](argument, 'train', seed, count)
  if len(found) < count:
    raise errors.expected('data.shots', f'at most the {len(found)} examples '
                           'of config.data.examples', count)
  return [chat.question_and_answer(messages) for messages in found[:count]]


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
    raise errors.expected(
        'data.task', 'the name of a task or a list of (name, rate)', task)
  places = [str(place) for place in range(len(found))]
  for place in options:
    errors.check_choice('data.options', place, places)
  return [(*part, options.get(place, {}))
          for place, part in zip(places, found)]


def check_options(source: Any, options: dict[str, Any]) -> None:
  """Refuses an option that `source`, a function above, does not take."""
  parameters = inspect.signature(source).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return
  valid = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
  for name in options:
    errors.check_choice('data.options', name, valid)
