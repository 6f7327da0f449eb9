"""What grows on the host: a run's files, its data, what scores its responses.
"""

from collections.abc import Mapping
import contextlib
import functools
import os
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import rewards as rewards_lib
from r1jax import types
from r1jax.data import batches
from r1jax.data import overlap
from r1jax.data import ragged
from r1jax.data import tasks
from r1jax.data import vocabs
from r1jax.reports import evaluation as evaluation_report
from r1jax.reports import rl as rl_report
from r1jax.rewards import filters
from r1jax.rewards import votes
from r1jax.rewards import workers
from r1jax.stages import evaluation
from r1jax.stages import rejection
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import search
from r1jax.training import files
from r1jax.training import history
from r1jax.training import loop
from tests import growth

Bound, Figures, timed = growth.Bound, growth.Figures, growth.timed

_THOUGHT = 'First 12 + 30 = {n}. 再算 {n} * 2. Wait, let me check it again.\n'
_ANSWER = '<think>{}</think> <answer> {n} </answer>'


@contextlib.contextmanager
def _folder():
  """A folder that goes, and a cache that is empty."""
  with tempfile.TemporaryDirectory() as name:
    before = os.environ.get('R1JAX_CACHE')
    os.environ['R1JAX_CACHE'] = f'{name}/cache'
    try:
      yield pathlib.Path(name)
    finally:
      del os.environ['R1JAX_CACHE']
      if before is not None:
        os.environ['R1JAX_CACHE'] = before


@functools.cache
def _vocab() -> vocabs.Vocab:
  return vocabs.load_vocab('sentencepiece', 'mini')


def _response(characters: int, number: int) -> str:
  thought = _THOUGHT.format(n=number)
  return _ANSWER.format(
      thought * max(characters // len(thought), 1), n=number)


###############################################################################
# The history of a run
###############################################################################

_METRICS = 40  # of a step
_SAMPLED = 8  # responses
_CONFIG = dict(
    name='growth', stage='toy', seed=0, data=dict(task='mini'),
    rl=dict(prompts=4, group=8, response_tokens=64),
    rewards=dict(answer='tags', judge=dict(init_from=None, url=None)))


def _stage(steps: int) -> loop.Stage:
  """Steps that compute nothing, with metrics and rows as those of RL."""
  state = types.TrainState(
      jnp.int32(0), {'w': jnp.zeros(4)}, (), None, jnp.int32(0))
  advance = jax.jit(lambda state: state._replace(step=state.step + 1))
  metrics = {f'part/metric_{n}': n / 7 for n in range(_METRICS)} | {
      'reward/accuracy': .5, 'perf/tokens': 10}
  rows = [{'id': n, 'response': _response(400, n)} for n in range(_SAMPLED)]
  return loop.Stage(
      steps, lambda: state, jax.eval_shape(lambda: state),
      lambda state, step: (advance(state), metrics, rows),
      evaluate=lambda state: ({'pass@1': .5}, []))


def _take_steps(folder: pathlib.Path, steps: int) -> None:
  """Takes the steps that are left of so many."""
  loop.train(_stage(steps), loop.Settings(
      checkpoint_every_steps=10 ** 9, eval_every_steps=50), str(folder),
             _CONFIG)


def _write_report(folder: pathlib.Path, steps: int) -> None:
  found = {'n': 40, 'pass@1': .5, 'ci95': [.1, .9], 'greedy': .5, 'format': 1.,
           'response_length': 40., 'truncated': 0., 'tasks': {'sums': .5}}
  rl_report.write_report(_CONFIG, str(folder), dict(
      stage='toy', steps=steps, seconds=1., seed=0, config_digest='abc',
      before=found, after=found))


def _history(steps: int) -> Mapping[str, Figures]:
  found, taken = {}, steps
  with _folder() as folder:
    runs = iter(range(9))
    found['all steps'] = timed(
        lambda: _take_steps(folder / f'run{next(runs)}', steps), repeats=1)
    def resume():
      nonlocal taken
      taken += 1
      _take_steps(folder / 'run0', taken)
    found['resuming'] = timed(resume)
    found["a checkpoint's record"] = timed(
        history.record, folder / 'run0', taken, _CONFIG, repeats=9)
    found['the report'] = timed(_write_report, folder / 'run0', taken)
  return found


###############################################################################
# Rows of data
###############################################################################


def _write_questions(path: pathlib.Path, count: int) -> None:
  files.write_rows(path, [dict(
      prompt=f'A farmer has {n} sheep and buys {n + 3} more. How many sheep '
      'does the farmer have then, and how many legs do they all have?',
      answer=str(n)) for n in range(count)])


def _rows_of_a_run(count: int, group: int = 4) -> list[dict]:
  """Rows of rollouts.jsonl, `group` responses to each problem."""
  return [dict(step=0, test='t', id=n // group, sample=n % group, task='sums',
               prompt=f'problem {n // group}', prompt_tokens=20, answer='1',
               response=_response(400, n), tokens=100 + n % 50, finished=True,
               accuracy=float(n % 3 == 0), format=1., reward=1., extracted='1',
               vote=n % 3, dropped='') for n in range(count)]


def _read(folder: pathlib.Path, count: int) -> batches.PromptSet:
  return tasks.prompt_set(
      f'jsonl:{folder}/rows.jsonl', _vocab(), 512, num_prompts=count)[0]


def _first_batch(prompts: batches.PromptSet) -> None:
  batches._permutation.cache_clear()
  batches.prompt_batch(prompts, 0, 32, seed=0)


def _batches_of_a_test(prompts: batches.PromptSet) -> None:
  test = evaluation.Test(
      't', prompts, np.argsort(prompts.length, kind='stable'), 0,
      rollouts.Settings(1, 64, (1,), 1.), None, count=32, batch=32)
  for start in range(0, len(prompts.records), test.count):
    test.part(start)


def _evaluated(folder: pathlib.Path, rows: list[dict]) -> None:
  found = evaluation.results(rows, None, 4) | {
      'left_out': 0, 'figures': {}, 'verifier': {'errors': 0},
      'sampling': dict(temperature=.6), 'time/seconds': 1.,
      'tokens': dict(total=1), 'perf/tokens_per_second': None}
  config = _CONFIG | dict(init_from='mini', tests=dict(t=dict(rewards={})))
  evaluation_report.write_report(config, str(folder), 2, dict(
      stage='evaluate', seed=0, config_digest='abc', seconds=1.,
      after={'t': found}))


def _rows(count: int) -> Mapping[str, Figures]:
  rng, found = np.random.default_rng(0), {}
  with _folder() as folder:
    _write_questions(folder / 'rows.jsonl', count)
    prompts = _read(folder, count)
    found['read and tokenised'] = timed(_read, folder, count, before=lambda: (
        files.remove(folder / 'cache')))
    found['the first batch'] = timed(_first_batch, prompts, repeats=9)
    found["an evaluation's batches"] = timed(_batches_of_a_test, prompts)
    documents = ragged.joined([
        np.ones(n, np.int32) for n in rng.integers(1, 400, count)])
    found['documents, packed'] = timed(
        batches.packed, documents, 512, repeats=9)
    rows = _rows_of_a_run(count)
    files.write_rows(folder / 'rollouts.jsonl', rows)
    found['results, report'] = timed(_evaluated, folder, rows)
    found['rejection sampling'] = timed(
        rejection.write_kept, folder, 1000, {})
    problems = [overlap.Problem(row['response']) for row in rows[:200]]
    texts = [(str(n), [row['response']]) for n, row in enumerate(rows)]
    found['contamination'] = timed(
        overlap.overlaps, {'suite': problems}, texts, 10)
  return found


def _problems(count: int) -> Mapping[str, Figures]:
  """A benchmark whose problems begin alike, as does each training text."""
  phrase = ('Solve the following problem step by step and put your final '
            'answer in a box. ')
  problems = [overlap.Problem(f'{phrase} What is {n} + {n + 1}?')
              for n in range(count)]
  texts = [(str(n), [f'{phrase} Add {n} and 1.']) for n in range(100)]
  return {'contamination': timed(
      overlap.overlaps, {'suite': problems}, texts, 10)}


###############################################################################
# Responses
###############################################################################


def _characters(count: int) -> Mapping[str, Figures]:
  texts = [_response(count, n) for n in range(8)]
  record = dict(prompt='How many are they?', answer='3', task='sums',
                verifier='math')
  responses = [rewards_lib.Response(text, 100, True) for text in texts]
  ids = np.array(_vocab().encode(texts[0]))
  row = dict(prompt=record['prompt'], response=texts[0], tokens=len(ids),
             finished=False, accuracy=1., format=1.)
  with rewards_lib.Scorer(
      {'accuracy': 1., 'format': 1., 'repetition': 1., 'overlong': 1.},
      max_tokens=10 ** 6, workers=1, timeout_seconds=60., answer='tags',
      languages=('en', 'zh')) as rules:
    scorer = scoring.RolloutScorer(_vocab(), rules)
    text = scorer._decode(ids, len(ids), record).text
    steps = text.splitlines(keepends=True)
    return {
        'scored by rules': timed(rules.score, [record] * 8, responses),
        'filtered': timed(filters.drop_reason, filters.Rules(
            languages=('en', 'zh'), max_paragraph=10 ** 9), row
            | dict(finished=True)),
        'ends of steps': timed(
            scorer.step_ends, record, row, ids, steps),
        'steps of a search': timed(
            search.StepCutter(_vocab(), ('\n',), 10 ** 6), ids)}


def _samples(count: int) -> Mapping[str, Figures]:
  record = dict(verifier='math', task='t', prompt='', answer='1')
  pool = workers.Pool(1, 60.)
  vote = lambda answers: timed(votes.classes, [record], [answers], pool)
  try:
    return {'votes on different answers': vote([str(n) for n in range(count)]),
            'votes on equal ones': vote(
                [f'{n}/{2 * n}' for n in range(1, count + 1)])}
  finally:
    pool.close()


_LINEAR = Bound(1.2, 1.15, 'read once')
_NOT = Bound(.3, .3, 'not at all')
AXES = (
    growth.Axis('steps taken', (1000, 2000, 4000), _history, {
        'all steps': Bound(1.2, .3, 'each adds its rows'),
        "a checkpoint's record": Bound(.5, .3, 'put on disk'),
        'resuming': _NOT,
        'the report': _LINEAR}),
    growth.Axis('rows', (4000, 8000, 16000), _rows, {
        'read and tokenised': _LINEAR,
        'the first batch': Bound(1.35, 1.15, 'sorted'),
        "an evaluation's batches": _LINEAR,
        'documents, packed': Bound(1.35, 1.15, 'sorted'),
        'results, report': _LINEAR, 'rejection sampling': _LINEAR,
        'contamination': _LINEAR}),
    growth.Axis('problems', (500, 1000, 2000), _problems, {
        'contamination': _LINEAR}),
    growth.Axis('characters', (16000, 32000, 64000), _characters, dict.fromkeys(
        ('scored by rules', 'filtered', 'ends of steps', 'steps of a search'),
        _LINEAR)),
    growth.Axis('samples', (16, 32, 64), _samples, dict.fromkeys(
        ('votes on different answers', 'votes on equal ones'),
        Bound(2.3, 2.3, 'pairs of answers'))),
)
