"""The mini world's tasks as sources: prompts, conversations, documents.

Each is a function (argument, split, seed, count, *, options), like those of
data/sources.py; the argument is what follows the colon in a task.
"""

from collections.abc import Iterable, Iterator
import itertools
import random
from typing import Any

from r1jax import errors
from r1jax.data import splits
from r1jax.mini import corpus
from r1jax.mini import general
from r1jax.mini import lessons
from r1jax.mini import programs
from r1jax.mini import questions
from r1jax.mini import repair
from r1jax.mini import wider

Record = dict[str, Any]


def mini_reasoning(argument: str, split: str, seed: int, count: int | None, *,
                   size: int | None = None, verifier: str = 'reasoning_gym',
                   tasks: str | Iterable[str] = corpus.TASKS,
                   languages: str | Iterable[str] = ('en',)) -> list[Record]:
  """Reasoning problems of the mini world, checked by a rule or a judge.

  They are asked in the `languages` 'en', 'zh' and 'it', in turn.
  """
  del argument
  splits.check(split)
  return _checked(verifier, 'reasoning_gym', corpus.reasoning_records(
      split, made(size, count), seed, _chosen('tasks', tasks, corpus.TASKS),
      _chosen('languages', languages, questions.LANGUAGES)))


def mini_repair(argument: str, split: str, seed: int, count: int | None, *,
                size: int | None = None) -> list[Record]:
  """Functions that fail their test, to be repaired."""
  del argument
  splits.check(split)
  return repair.records(split, made(size, count), seed)


def mini_code(argument: str, split: str, seed: int, count: int | None, *,
              size: int | None = None) -> list[Record]:
  """Small functions to program, checked by tests."""
  del argument
  return [programs.record(prompt, steps) for prompt, steps in _functions(
      random.Random(f'code/{split}/{seed}'), split, made(size, count))]


def mini_code_answers(argument: str, split: str, seed: int, count: int | None,
                      *, size: int | None = None
                      ) -> list[list[dict[str, Any]]]:
  """The same with programs that are right or wrong, as conversations."""
  del argument
  rng = random.Random(f'code answers/{split}/{seed}')
  return [conversation((prompt, programs.respond(rng, steps)))
          for prompt, steps in _functions(rng, split, made(size, count))]


def _functions(rng: random.Random, split: str, count: int
               ) -> Iterator[tuple[str, list[programs.Step]]]:
  splits.check(split)
  return itertools.islice(
      (problem for problem in programs.problems(rng)
       if splits.in_split(problem[0], split)), count)


def mini_writing(argument: str, split: str, seed: int, count: int | None
                 ) -> list[Record]:
  """Writing prompts of the mini world, scored by a reader's taste."""
  del argument
  splits.check(split)
  return corpus.writing_records(split, count, seed)


def mini_demonstrations(argument: str, split: str, seed: int,
                        count: int | None, *, size: int | None = None
                        ) -> list[list[dict[str, Any]]]:
  """The same prompts with texts of every quality, as conversations."""
  del argument
  splits.check(split)
  return list(map(conversation, corpus.demonstrations(
      split, made(size, count), seed)))


def mini_worked(argument: str, split: str, seed: int, count: int | None, *,
                size: int | None = None, asked: str = 'en'
                ) -> list[list[dict[str, Any]]]:
  """Reasoning problems with right responses of a mode, such as 'long_en'.

  They are `asked` in 'en', 'zh' or 'it'.
  """
  errors.check_choice(
      'data.task (mini_worked:MODE)', argument, lessons.MODES)
  errors.check_choice('data.options.asked', asked, questions.LANGUAGES)
  return list(map(conversation, lessons.worked(
      split, made(size, count), seed, argument, asked)))


def mini_corpus(argument: str, split: str, seed: int, count: int | None, *,
                size: int | None = None) -> list[str]:
  """The mini world's base corpus."""
  del argument
  errors.check_choice(splits.FIELD, split, ('train',))
  return corpus.documents(made(size, count), seed)


def mini_wider(argument: str, split: str, seed: int, count: int | None, *,
               size: int | None = None) -> list[str]:
  """A wider corpus: further languages, examples in a row, repairs."""
  del argument
  errors.check_choice(splits.FIELD, split, ('train',))
  return wider.documents(made(size, count), seed)


def mini_general_prompts(argument: str, split: str, seed: int,
                         count: int | None, *, verifier: str = 'exact',
                         tasks: str | Iterable[str] = general.CHECKABLE
                         ) -> list[Record]:
  """General tasks with one right answer: facts, the self, translation."""
  del argument
  splits.check(split)
  return _checked(verifier, 'exact', corpus.general_records(
      split, count, seed, _chosen('tasks', tasks, general.CHECKABLE)))


def mini_general_answers(argument: str, split: str, seed: int,
                         count: int | None, *, size: int | None = None,
                         tasks: str | Iterable[str] = general.GENERAL
                         ) -> list[list[dict[str, Any]]]:
  """General tasks, writing among them, with their answers."""
  del argument
  splits.check(split)
  tasks = _chosen('tasks', tasks, general.GENERAL)
  return [conversation((record['prompt'], record['answer']))
          for record in corpus.general_records(
              split, made(size, count), seed, tasks)]


def mini_request_prompts(argument: str, split: str, seed: int,
                         count: int | None, *, harmful: bool | None = None,
                         safety: bool = False) -> list[Record]:
  """Requests to refuse or to help with; `harmful` selects one kind.

  With `safety`, any reply to a harmless one is right.
  """
  del argument
  harmless = lambda *asked: general.ANY if safety else ' '.join(
      (general.HELP, *asked))
  return [dict(prompt=prompt, task='requests', verifier='refusal',
               answer=general.REFUSE if bad else harmless(deed, animal))
          for prompt, bad, deed, animal in _requests(split, seed)
          if harmful in (None, bad)][:count]


def mini_request_answers(argument: str, split: str, seed: int,
                         count: int | None) -> list[list[dict[str, Any]]]:
  """The same with answers that comply or refuse, rightly and wrongly."""
  del argument
  rng = random.Random(f'requests/{split}/{seed}')
  return [conversation((request[0], general.reply_to_request(rng, request)))
          for request in _requests(split, seed)[:count]]


def lesson_answers(argument: str, split: str, seed: int, count: int | None, *,
                   size: int | None = None) -> list[list[dict[str, Any]]]:
  """Lessons for a helper model; `argument` may name a kind, as 'rewrite'."""
  splits.check(split)
  if argument:
    errors.check_choice(
        'data.task (mini_lessons:KIND)', argument, lessons.LESSONS)
  return list(map(conversation, lessons.lessons(
      argument, split, made(size, count), seed)))


PROMPTS = {'mini_reasoning': mini_reasoning, 'mini_code': mini_code,
           'mini_writing': mini_writing,
           'mini_general': mini_general_prompts,
           'mini_requests': mini_request_prompts, 'mini_repair': mini_repair}
DOCUMENTS = {'mini_corpus': mini_corpus, 'mini_wider': mini_wider}
CONVERSATIONS = {'mini_writing': mini_demonstrations,
                 'mini_code': mini_code_answers,
                 'mini_worked': mini_worked,
                 'mini_general': mini_general_answers,
                 'mini_requests': mini_request_answers,
                 'mini_lessons': lesson_answers}


def conversation(pair: tuple[Any, Any]) -> list[dict[str, Any]]:
  """A question and its answer as messages."""
  return [{'role': role, 'content': text}
          for role, text in zip(('user', 'assistant'), pair)]


def made(size: int | None, count: int | None) -> int:
  """The number of problems to make: the option's, else `count`."""
  number = count if size is None else size
  if not isinstance(number, int) or number < 1:
    raise errors.expected(
        'data.options.size', 'a number: this task generates its data', number)
  return number


def _requests(split: str, seed: int) -> list[general.Request]:
  splits.check(split)
  requests = [request for request in general.request_prompts()
              if splits.in_split(request[0], split)]
  random.Random(f'requests/{seed}').shuffle(requests)
  return requests


def _checked(verifier: str, rule: str, records: list[Record]) -> list[Record]:
  errors.check_choice('data.options.verifier', verifier, (rule, 'judge'))
  return [record | dict(verifier=verifier) for record in records]


def _chosen(option: str, names: str | Iterable[str], known: tuple[str, ...]
            ) -> tuple[str, ...]:
  names = (names,) if isinstance(names, str) else tuple(names)
  if not names:
    raise errors.expected(
        f'data.options.{option}', f'at least one {option[:-1]}', names)
  for name in names:
    errors.check_choice(f'data.options.{option}', name, known)
  return names
