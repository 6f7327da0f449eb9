"""The reward of a response: a weighted sum of parts, each also kept alone.

To add a part: a function of (response, record, settings), and its line in
`PARTS`. A user's own parts need no change here (rewards/functions.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import json
import re
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from r1jax import errors
from r1jax.rewards import accuracy
from r1jax.rewards import answers
from r1jax.rewards import functions as functions_lib
from r1jax.rewards import kept
from r1jax.rewards import language as language_lib
from r1jax.rewards import lengths
from r1jax.rewards import text_rules
from r1jax.rewards import votes
from r1jax.rewards import workers as workers_lib
from r1jax.rewards.code import runner as runner_lib

ACCURACY = 'accuracy'  # the part that is computed a batch at a time
_REASON = re.compile(r"\S* [^\d'\"]*")  # the task and the reason, no answer


class Response(NamedTuple):
  """A sampled response, decoded."""
  text: str  # without EOS
  tokens: int  # its length, EOS included
  finished: bool  # it ended by EOS rather than at the limit


class Scores(NamedTuple):
  """The rewards of N responses."""
  total: np.ndarray  # f32[N], the weighted sum
  parts: dict[str, np.ndarray]  # f32[N] each, unweighted
  counters: dict[str, int]  # of what could not be scored, and so scores 0
  # N, the columns that programs and reward functions log; (): none.
  columns: Sequence[Mapping[str, Any]] = ()
  # N, the answers that were checked, None where there is none; (): not known.
  answers: Sequence[str | None] = ()

  def row(self, n: int) -> dict[str, Any]:
    """The fields of response `n` in rollouts.jsonl."""
    parts = {name: float(part[n]) for name, part in self.parts.items()}
    return {'reward': float(self.total[n])} | parts | (
        {'extracted': self.answers[n]} if self.answers else {}) | (
            self.columns[n] if self.columns else {})


class Settings(NamedTuple):
  """Settings of config.rewards that the parts use."""
  max_tokens: int  # the limit at which a response is cut
  overlong_cache_tokens: int  # so far below it the overlong penalty starts
  form: str  # one of text_rules.FORMS
  languages: language_lib.Languages | None  # to distinguish
  language: str | None  # of the thinking; None: the prompt's


def _format(response: Response, record: Mapping, settings: Settings) -> float:
  del record
  return text_rules.format_reward(response.text, settings.form)


def _language(response: Response, record: Mapping, settings: Settings) -> float:
  target = settings.language or settings.languages.due(
      record['prompt'], response.text)
  return language_lib.consistency(settings.languages, response.text, target)


def _mixed(response: Response, record: Mapping, settings: Settings) -> float:
  del record
  return settings.languages.mixed(response.text)


def _overlong(response: Response, record: Mapping, settings: Settings) -> float:
  del record
  return text_rules.overlong_penalty(
      response.tokens, response.finished, settings.max_tokens,
      settings.overlong_cache_tokens)


def _repetition(response: Response, record: Mapping, settings: Settings
                ) -> float:
  del record, settings
  return text_rules.repetition_penalty(response.text)


class Part(NamedTuple):
  """A part of the reward that is a function of one response."""
  score: Callable[[Response, Mapping, Settings], float]
  measured: bool = False  # computed at weight 0, too, for the metrics
  by_language: bool = False  # only where there are languages to distinguish


PARTS = {
    'format': Part(_format, measured=True),
    'language': Part(_language, measured=True, by_language=True),
    'mixed': Part(_mixed, measured=True, by_language=True),
    'overlong': Part(_overlong),
    'repetition': Part(_repetition),
}
NAMES = (ACCURACY, *PARTS, lengths.LENGTH)  # the last one: lengths.py


class Scorer:
  """Scores responses; its workers end with this process, or by close().

  Accuracy, format, languages and the user's functions are always computed, for
  the metrics; the other parts only where they have a weight. Why a response
  could not be scored is logged once for each task or function and reason.
  """

  def __init__(self, weights: Mapping[str, float],
               tasks: Mapping[str, Mapping[str, float]] | None = None, *,
               max_tokens: int,
               overlong_cache_tokens: int | None = None, workers: int,
               timeout_seconds: float, answer: str, form: str = 'answer',
               languages: Sequence[str] = (), language: str | None = None,
               functions: Mapping[str, str] | None = None,
               code: runner_lib.Limits = runner_lib.Limits(),
               reserved: Iterable[str] = ()):
    """Checks the settings; starts processes for the user's functions alone.

    Args:
      weights: of the parts; the default is 0, for a function 1.
      tasks: {task: {part: weight}}, for tasks with weights of their own.
      max_tokens: the limit at which a response is cut.
      overlong_cache_tokens: so far below it the overlong penalty starts; None:
        a fifth of it, as DAPO's 4,096 of 20,480.
      workers: processes that verify answers, and as many that run functions.
      timeout_seconds: the wall-clock limit of one answer or function call.
      answer: one of answers.ANSWERS, how the answer is marked.
      form: one of text_rules.FORMS, the format that is rewarded.
      languages: to distinguish; (): no language rewards.
      language: that the thinking should be in; None: the prompt's.
      functions: {name: 'my_rewards.py:function'}, the user's own parts.
      code: what programs may use.
      reserved: names that these cannot have, such as those of reward models.

    Raises:
      ConfigError: names the field of config.rewards that is wrong.
    """
    functions = dict(functions or {})
    self._weights = dict.fromkeys(functions, 1.) | dict(weights)
    self._tasks = {task: dict(other) for task, other in (tasks or {}).items()}
    self._check_names((*NAMES, *functions))
    if overlong_cache_tokens is None:
      overlong_cache_tokens = max(max_tokens // 5, 1)
    if not 0 < overlong_cache_tokens <= max_tokens:
      raise errors.expected('rewards.overlong_cache_tokens',
                            f'1 to {max_tokens}', overlong_cache_tokens)
    errors.check_choice('rewards.answer', answer, answers.ANSWERS)
    errors.check_choice('rewards.form', form, text_rules.FORMS)
    if language is not None:
      errors.check_choice('rewards.language', language, languages)
    for name, part in PARTS.items():
      if part.by_language and self._weighs(name) and not languages:
        raise errors.expected(
            'rewards.languages',
            f'those that the reward {name!r} distinguishes', languages)
    self._settings = Settings(
        max_tokens, overlong_cache_tokens, form,
        language_lib.Languages(languages) if languages else None, language)
    self._answer = answer
    self._logged = set()  # reasons already logged
    self._restarts = 0  # of workers, already counted
    self._pool = kept.Pool(workers, timeout_seconds)
    self._programs = workers_lib.Pool(
        workers, code.total_seconds + 2 * runner_lib.START_SECONDS,
        load=json.dumps(code._asdict()), serve='r1jax.rewards.code.worker')
    self._functions = functions_lib.Functions(
        functions, workers, timeout_seconds, reserved=(*NAMES, *reserved))

  def score(self, records: Sequence[Mapping], responses: Sequence[Response]
            ) -> Scores:
    """The scores of N responses to N records (a record may repeat).

    Raises:
      ValueError: a record without a known verifier or its reference.
      RunError: the verifiers themselves cannot be loaded.
    """
    extracted = [accuracy.find_answer(record, r.text, self._answer, r.finished)
                 for record, r in zip(records, responses)]
    accurate = accuracy.check_answers(
        records, extracted, self._pool, self._programs)
    self._log('no verdict on an answer', accurate.errors)
    values = {ACCURACY: accurate.right}
    for name, part in PARTS.items():
      possible = self._settings.languages or not part.by_language
      if possible and (part.measured or self._weighs(name)):
        values[name] = [part.score(response, record, self._settings)
                        for record, response in zip(records, responses)]
    scored = self._functions.score(records, responses)
    self._log('a reward function failed and scored 0', scored.errors)
    values |= scored.values
    parts = {k: np.asarray(v, np.float32) for k, v in values.items()}
    total = np.zeros(len(responses), np.float32)
    for name, part in parts.items():
      total += part * np.float32(
          [self.weight(name, record['task']) for record in records])
    before, self._restarts = (
        self._restarts, self._pool.restarts + self._programs.restarts
        + self._functions.restarts)
    return Scores(
        total, parts, accurate.counters | scored.counters
        | {'restarts': self._restarts - before},
        [a | b for a, b in zip(accurate.columns, scored.columns)], extracted)

  def votes(self, records: Sequence[Mapping],
            extracted: Sequence[Sequence[str | None]]
            ) -> tuple[list[list[int | None]], dict[str, int]]:
    """The classes of equal answers to each problem; see votes.classes."""
    return votes.classes(records, extracted, self._pool)

  def weight(self, part: str, task: str) -> float:
    """The weight of a part in the rewards of a task."""
    return self._tasks.get(task, {}).get(part, self._weights.get(part, 0.0))

  def _weighs(self, part: str) -> bool:
    return any(weights.get(part)
               for weights in (self._weights, *self._tasks.values()))

  def _check_names(self, names: Sequence[str]) -> None:
    """Refuses the weight of a part that does not exist."""
    for section, weights in [('weights', self._weights), *(
        (f'tasks.{task}', other) for task, other in self._tasks.items())]:
      for name in weights:
        if name not in names:
          field = f'rewards.{section}.'
          raise errors.ConfigError(
              f'{field}{name}', 'no such reward'
              + errors.nearest(name, names, f'config.{field}'))

  def _log(self, event: str, lines: Sequence[str]) -> None:
    for line in lines:
      reason = _REASON.match(line).group()
      if reason not in self._logged:
        self._logged.add(reason)
        logging.warning('%s: %s', event, line)

  def close(self):
    self._pool.close()
    self._programs.close()
    self._functions.close()

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self.close()
