"""The reward of a response: a weighted sum of parts, each also kept alone."""

import re
from typing import Mapping, NamedTuple, Sequence

from absl import logging
import numpy as np

from r1jax import errors
from r1jax.rewards import accuracy
from r1jax.rewards import language as language_lib
from r1jax.rewards import text_rules
from r1jax.rewards import workers as workers_lib

PARTS = (
    'accuracy', 'format', 'language', 'mixed', 'overlong', 'repetition')
_REASON = re.compile(r"\S* [^\d'\"]*")  # the task, and what is not the answer


class Response(NamedTuple):
  """What is scored."""
  text: str  # decoded, without EOS
  tokens: int  # its length, EOS included
  finished: bool  # it ended by EOS rather than by the limit


class Scores(NamedTuple):
  """The rewards of N responses."""
  total: np.ndarray  # f32[N], the weighted sum
  parts: dict[str, np.ndarray]  # f32[N] each, unweighted
  counters: dict[str, int]  # answers without a verdict, by cause: they score 0


class Scorer:
  """Scores responses; holds the worker processes, so close it.

  Accuracy, format and languages are always computed, for the metrics; the
  other parts only where they weigh. Why a verifier gave no verdict is logged
  once for each task and reason.
  """

  def __init__(self, weights: Mapping[str, float],
               tasks: Mapping[str, Mapping[str, float]] | None = None, *,
               max_tokens: int,
               overlong_cache_tokens: int | None = None, workers: int,
               timeout_seconds: float, answer: str, form: str = 'answer',
               languages: Sequence[str] = (), language: str | None = None):
    """Checks the settings; starts no process yet.

    Args:
      weights: of the parts; a part not named weighs 0.
      tasks: {task: {part: weight}} where a task's are others.
      max_tokens: the limit at which a response is cut.
      overlong_cache_tokens: tokens below it where the overlong penalty sets
        in; None is a fifth of it, DAPO's 4,096 of 20,480.
      workers: processes that verify answers.
      timeout_seconds: the wall-clock limit of one answer.
      answer: one of accuracy.ANSWERS, where the answer stands.
      form: one of format.FORMS, what the format reward pays for.
      languages: that are told apart; none: no language is looked at.
      language: which the thinking is to be in; None: that of the prompt.
    """
    self._tasks = {task: dict(own) for task, own in (tasks or {}).items()}
    for where, given in [('weights', weights), *(
        (f'tasks.{task}', own) for task, own in self._tasks.items())]:
      for name in given:
        if name not in PARTS:
          prefix = f'config.rewards.{where}.'
          raise errors.ConfigError(
              f'{prefix}{name}: no such reward'
              + errors.nearest(name, PARTS, prefix))
    if overlong_cache_tokens is None:
      overlong_cache_tokens = max(max_tokens // 5, 1)
    _require('overlong_cache_tokens', overlong_cache_tokens,
             0 < overlong_cache_tokens <= max_tokens, f'1 to {max_tokens}')
    _require('workers', workers, workers >= 1, 'at least 1')
    _require('timeout_seconds', timeout_seconds, timeout_seconds > 0,
             'more than 0')
    errors.check_choice('rewards.answer', answer, accuracy.ANSWERS)
    self._told = set()  # reasons already logged
    self._limit = max_tokens
    self._cache = overlong_cache_tokens
    errors.check_choice('rewards.form', form, text_rules.FORMS)
    self._answer, self._form = answer, form
    self._languages = language_lib.Languages(languages) if languages else None
    if language is not None:
      errors.check_choice('rewards.language', language, languages)
    self._weights = dict(weights)
    for name in ('language', 'mixed'):
      if self._weighs(name) and not languages:
        raise errors.expected('rewards.languages', f'those that the reward '
                               f'{name!r} tells apart', languages)
    self._language = language
    self._pool = workers_lib.Pool(workers, timeout_seconds)

  def score(self, records: Sequence[Mapping],
            responses: Sequence[Response]) -> Scores:
    """The scores of N responses to N records (a record may repeat).

    Errors: ValueError for a record without a known verifier or its reference;
    RuntimeError if the verifiers themselves cannot be loaded.
    """
    judged = accuracy.check_answers(
        records, [accuracy.extract_answer(r.text, self._answer, r.finished)
                  for r in responses], self._pool)
    self._tell(judged.errors)
    values = {
        'accuracy': judged.right,
        'format': [text_rules.format_reward(r.text, self._form) for r in responses]}
    if self._languages:
      values['language'] = list(map(self._consistency, records, responses))
      values['mixed'] = [self._languages.mixed(r.text) for r in responses]
    if self._weighs('overlong'):
      values['overlong'] = [
          text_rules.overlong_penalty(r.tokens, r.finished, self._limit, self._cache)
          for r in responses]
    if self._weighs('repetition'):
      values['repetition'] = [text_rules.repetition_penalty(r.text) for r in responses]
    parts = {k: np.asarray(v, np.float32) for k, v in values.items()}
    total = np.zeros(len(responses), np.float32)
    for name, part in parts.items():
      total += part * np.float32(
          [self.weight(name, record['task']) for record in records])
    return Scores(total, parts, judged.counters)

  def weight(self, part: str, task: str) -> float:
    """What a part weighs in the rewards of a task."""
    return self._tasks.get(task, {}).get(part, self._weights.get(part, 0.0))

  def _weighs(self, part: str) -> bool:
    return any(weights.get(part)
               for weights in (self._weights, *self._tasks.values()))

  def _consistency(self, record: Mapping, response: Response) -> float:
    """How far a response keeps to the language that is due."""
    target = self._language or self._languages.due(
        record['prompt'], response.text)
    return language_lib.consistency(self._languages, response.text, target)

  def _tell(self, errors: Sequence[str]):
    for line in errors:
      reason = _REASON.match(line).group()
      if reason not in self._told:
        self._told.add(reason)
        logging.warning('no verdict on an answer: %s', line)

  def close(self):
    self._pool.close()

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self.close()


def _require(name: str, value, holds: bool, expected: str):
  if not holds:
    raise errors.expected(f'rewards.{name}', expected, value)
