"""Whole steps: the same on every mesh, and what a step changes."""

import pathlib
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import ppo
from experiments import r1_zero
from r1jax import errors
from r1jax.parallel import sharding
from r1jax.stages import evaluation
from r1jax.stages import rl
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import timing


class Steps(NamedTuple):
  """What each of some steps left, on the host."""
  states: list
  metrics: list
  rows: list


def _steps(run, count, first=0):
  state, steps = run.init(), Steps([], [], [])
  for step in range(first, first + count):
    state, metrics, rows = run.learner(state, step)
    for kept, value in zip(steps, jax.device_get((state, metrics, rows))):
      kept.append(value)
  return steps


@pytest.fixture(name='three', scope='module')
def _three():
  """Three steps on one device, the reference refreshed by the second."""
  return _steps(tiny_rl.Run(ref_every_steps=2), 3)


def test_8_devices_take_the_steps_of_one(three):
  run = tiny_rl.Run(dict(data=2, fsdp=2, tensor=2), ref_every_steps=2)
  got = _steps(run, 3)
  assert got.rows == three.rows  # the same samples and rewards
  for state, expected in zip(got.states, three.states):
    tiny.assert_near(state, expected)
  times = {timing.BEGAN, timing.ROLLED_OUT, timing.SCORED_EARLY,
           timing.SCORED_LATE}
  for metrics, expected in zip(got.metrics, three.metrics):
    assert metrics.keys() == expected.keys()
    for name in expected.keys() - times:
      np.testing.assert_allclose(metrics[name], expected[name], atol=1e-4)


def test_a_step_moves_every_parameter(three):
  assert [int(state.step) for state in three.states] == [1, 2, 3]
  before = tiny.params()
  for state in three.states:
    assert all(np.all(new != old) for new, old in zip(
        *map(jax.tree.leaves, (state.params, before))))
    before = state.params


def test_the_distance_begins_anew_where_the_reference_does(three):
  first, second, third = three.states
  jax.tree.map(np.testing.assert_array_equal, first.ref, tiny.params())
  jax.tree.map(np.testing.assert_array_equal, second.ref, second.params)
  jax.tree.map(np.testing.assert_array_equal, third.ref, second.params)
  distance = [metrics['kl/ref'] for metrics in three.metrics]
  assert distance[0] < 1e-6 and distance[2] < 1e-6  # they begin as equals
  assert distance[1] > 1e-4


def test_the_metrics_are_those_of_the_rows(three):
  _, metrics, rows = three
  assert len(rows[1]) == 32
  mean = lambda name: np.mean([row[name] for row in rows[1]])
  expected = {
      'reward/mean': mean('reward'), 'reward/accuracy': mean('accuracy'),
      'reward/format': mean('format'), 'response_length/mean': mean('tokens'),
      'response_length/clip_ratio': 1 - mean('finished'),
      'perf/tokens': 32 * mean('tokens')}
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[1][name], value, rtol=1e-5)
  assert 0 < expected['response_length/clip_ratio'] < 1


class _Unfinished:
  """A scalar that the device has not computed yet: to look at it is to wait."""

  def __add__(self, other):
    return self

  __radd__ = __truediv__ = __add__

  def _wait(self, *args, **kwargs):
    raise AssertionError('the step waited for its update')

  __array__ = __float__ = __int__ = __bool__ = block_until_ready = _wait


def test_no_step_waits_for_its_update(monkeypatch):
  run = tiny_rl.Run()
  metrics = {'policy/logp_drift': _Unfinished()}
  monkeypatch.setattr(
      run.learner, '_update', lambda policy, experience, index: (
          policy._replace(params=_Unfinished()), metrics))
  after, metrics, _ = run.learner(run.init(), 0)
  assert isinstance(after.params, _Unfinished)
  assert isinstance(metrics['policy/logp_drift'], _Unfinished)


def _documented():
  """The names in the table of metrics of r1jax/README.md."""
  text = (pathlib.Path(rl.__file__).parents[1] / 'README.md').read_text('utf-8')
  names = set()
  table = text.partition('| metric |')[2].partition('\n## ')[0]
  for cell in re.findall(r'^\| (.*?) \|', table, re.MULTILINE):
    first, *others = re.findall('`([^`]+)`', cell) or ['']
    prefix, slash, _ = first.rpartition('/')
    for name in (first, *others):  # of `a/b`, `c` or `a/b,c` both are in a/
      leaves = name.removeprefix(prefix + slash).split(',')
      names |= {prefix + slash + leaf for leaf in leaves}
  return names


def test_every_metric_of_a_step_is_documented(three, dynamic):
  found = set().union(*three.metrics, *dynamic[0].metrics)
  assert len(found) > 20
  assert found - _documented() <= {timing.BEGAN, timing.ROLLED_OUT}


def test_metrics_of_a_step_by_hand():
  """Rewards 1 0 | 2 2, lengths 3 5 | 4 6, one response cut; two updates."""
  rows = [dict(tokens=n, finished=n < 6) for n in (3, 5, 4, 6)]
  scored = scoring.Scored(
      None, np.float32([1, 0, 2, 2]), {'format': np.float32([1, 1, 0, 1])},
      np.array([3, 5, 4, 6]), np.array([True] * 3 + [False]), {'errors': 2},
      rows, 3, 1)
  updated = [{'policy/logp_drift': 0., 'policy/loss': 1.},
             {'policy/logp_drift': 1., 'policy/loss': 2.}]
  assert rl.step_metrics(scored, 2, {'kl/response': .5}, updated) == {
      'reward/mean': 1.25, 'reward/std': .25, 'reward/frac_zero_std': .5,
      'reward/format': .75, 'response_length/mean': 4.5,
      'response_length/min': 3, 'response_length/max': 6,
      'response_length/clip_ratio': .25, 'perf/tokens': 18,
      'verifier/errors': 2, 'sampling/groups_drawn': 3,
      'sampling/groups_dropped': 1, 'sampling/logp_difference': 0.,
      'kl/response': .5, 'policy/logp_drift': .5, 'policy/loss': 1.5}


def test_the_reference_becomes_the_policy_every_so_many_steps():
  run = tiny_rl.Run(ref_every_steps=2)
  state, differs = run.init(), []
  for step in range(3):
    before = jax.device_get(state.ref)
    state, _, _ = run.learner(state, step)
    refreshed = jax.tree.all(jax.tree.map(
        np.array_equal, state.ref, state.params))
    kept = jax.tree.all(jax.tree.map(np.array_equal, state.ref, before))
    differs.append((refreshed, kept))
  assert differs == [(False, True), (True, False), (False, True)]


class _Fickle(tiny_rl.Scorer):
  """Prompts with an even id are solved by every response."""

  def score(self, records, responses):
    scores = super().score(records, responses)
    solved = np.array([int(r['answer']) % 2 == 0 for r in records])
    return scores._replace(total=np.where(solved, 1, scores.total).astype('f'))


@pytest.fixture(name='dynamic', scope='module')
def _dynamic():
  """Step 2 of a run that samples on and updates six times; what it drew."""
  drawn = []

  def draw(number):
    drawn.append(number)
    return tiny_rl.draw(number)

  run = tiny_rl.Run(
      objective=tiny_rl.OBJECTIVE._replace(
          drop_equal_groups=True, mini_batches=2),
      epochs=3, sampling_rounds=3, scorer=_Fickle(), draw=draw)
  sampler = run.learner._sampler

  def sample(params, batch, seed, stream):
    drawn.append((seed, stream, batch.records[0]['step']))
    return sampler(params, batch, seed, stream)

  run.learner._sampler = sample
  return _steps(run, 1, first=2), drawn


def test_dynamic_sampling_draws_on_for_groups_of_equal_rewards(dynamic):
  steps, drawn = dynamic
  metrics, rows = steps.metrics[0], steps.rows[0]
  # Two batches go once through all prompts, of which half have an odd id.
  # Each has a stream of its own; functions are told the step.
  assert drawn == [6, (0, 6, 2), 7, (0, 7, 2)]
  assert metrics['reward/frac_zero_std'] == 0
  assert len(rows) == 2 * 32  # what was dropped is logged and counted, too
  assert metrics['verifier/errors'] == 2
  odd = [row['reward'] for row in rows if row['id'] % 2]
  np.testing.assert_allclose(metrics['reward/mean'], np.mean(odd), rtol=1e-5)


def test_epochs_and_mini_batches_make_more_updates_of_a_rollout(dynamic):
  state, metrics = dynamic[0].states[0], dynamic[0].metrics[0]
  assert state.step == 1 and state.opt_state[1].count == 6  # Adam's
  assert metrics['sampling/logp_difference'] < 1e-5  # at the first update
  assert metrics['policy/logp_drift'] > 1e-3  # the mean over all six


def test_weights_of_a_task_that_no_prompt_has_are_refused(tmp_path):
  config = r1_zero.mini()
  config.data.num_prompts = 3
  config.rewards.tasks = {'leg_count': {'accuracy': 0.}}
  with pytest.raises(errors.ConfigError,
                     match=r'rewards.tasks.leg_count: .*\.leg_counting\?'):
    rl.build(config, sharding.make_mesh({}, jax.devices()[:1]), str(tmp_path))


def test_a_stage_is_built_as_its_config_says(tmp_path, monkeypatch):
  """PPO of 7 steps with 3 epochs of 2 mini-batches: 42 updates of each."""
  config = ppo.get_config('reasoning').unlock()
  config.steps, config.data.num_prompts, config.eval.problems = 7, 5, 3
  config.rl.update(epochs=3, mini_batches=2, sampling_rounds=2, kl='k1',
                   kl_in='reward', beta=.5, kl_target=2., prompts=4,
                   score_while_sampling=True, slots=12)
  config.eval.update(samples=5, temperature=.6, top_k=7, top_p=.8)
  config.critic.update(gamma=.9, lam=.8, whiten=False, value_clip=.3)
  built = {}

  def keep(module, name):
    make = getattr(module, name)
    def called(*args, **kwargs):
      built.setdefault(name, []).append((args, kwargs))
      return make(*args, **kwargs)
    monkeypatch.setattr(module, name, called)

  keep(train_state, 'optimizer')
  keep(rl, 'Learner')
  keep(rollouts, 'Sampler')
  keep(evaluation, 'make_evaluator')
  stage = rl.build(
      config, sharding.make_mesh({}, jax.devices()[:1]), str(tmp_path))
  assert stage.steps == 7
  assert [args[1] for args, _ in built['optimizer']] == [42, 42]
  (_, _, _, objective, settings, _, _, draw, critic, partial), _ = built['Learner'][0]
  assert objective == rl.make_objective(config.rl) and (
      objective.drop_equal_groups and objective.beta == .5)
  assert settings == rl.Settings(3, 0, 2, 2., config.seed)
  assert {draw(0).id.max(), draw(1).id.max()} <= {3, 4}
  assert critic.critic[1:] == (.9, .8, False, .3)
  assert partial is None
  assert critic.critic.model.config.scalar
  assert stage.abstract.beta.dtype == np.float32
  (_, held_out, _, settings), named = built['make_evaluator'][0]
  assert named['in_pieces'] is config.rl.score_while_sampling
  assert len(held_out.records) == 3
  assert settings._replace(eos_ids=()) == rollouts.Settings(
      5, 160, (), .6, chunk=80, top_k=7, top_p=.8, slots=12, cpu_threads=2)
  assert rollouts.longest_sequence(config.rl)[1] == 32 + 160
  (_, sampled, in_pieces), _ = built['Sampler'][0]
  assert in_pieces is config.rl.score_while_sampling
  assert sampled._replace(eos_ids=()) == rollouts.Settings(
      8, 160, (), 1., chunk=80, slots=12, cpu_threads=2)
  for rounds in (0, 1):
    config.rl.sampling_rounds = rounds
    assert rl.make_objective(config.rl).drop_equal_groups == bool(rounds)


@pytest.mark.parametrize('target', [None, 2.])
def test_beta_is_part_of_the_state_where_it_adapts(
    tmp_path, monkeypatch, target):
  def stop(*args, adaptive):
    del args
    raise InterruptedError(adaptive)

  config = r1_zero.mini()
  config.rl.kl_target = target
  monkeypatch.setattr(rl, 'abstract_state', stop)
  with pytest.raises(InterruptedError, match=str(target is not None)):
    rl.build(config, sharding.make_mesh({}, jax.devices()[:1]), str(tmp_path))
