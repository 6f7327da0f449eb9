"""Partial rollouts: what is in flight, how old it gets, and that it is kept."""

import functools
import types

import jax
import numpy as np
import pytest

import hosts
import tiny
import tiny_rl
from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import errors
from r1jax.parallel import sharding
from r1jax.stages import partial
from r1jax.stages import rl
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import loop
from r1jax.training import optim

P, R = tiny_rl.PROMPTS, tiny_rl.RESPONSE
SETTINGS = partial.Settings(P, 2 * P, 2, 2)  # C = 2 of R = 6
SLOTS = tiny_rl.SETTINGS._replace(slots=24)


class _Fake:
  """A sampler that completes groups at random, and those that are due."""

  def __init__(self, settings, seed=0):
    self._random, self._settings = np.random.default_rng(seed), settings
    placed = tiny.setup()
    self.sampler = partial.Sampler(
        placed, tiny_rl.SETTINGS, settings, self._draw, 0)
    self.sampler._sample = self._sample
    self.sampler._take = lambda drawn, steps, rows, kept, step: (
        types.SimpleNamespace(_replace=lambda prompts: rows), None, {})
    self.held = partial.InFlight(
        np.full(settings.in_flight, -1), np.ones(settings.in_flight, bool),
        None, None)
    self.begun = {}  # number -> step

  def _draw(self, number):
    """Batches whose prompts have the numbers of the run as ids."""
    ids = number * P + np.arange(P, dtype=np.int32)
    return tiny_rl.draw(0)._replace(
        id=ids, records=tuple({'answer': str(i)} for i in ids))

  def _sample(self, params, prompts, held, new, seed, step):
    number = np.asarray(held.number)
    np.testing.assert_array_equal(number, prompts.id)
    for n in number[np.asarray(new)].tolist():
      assert n not in self.begun
      self.begun[n] = int(step)
    due = number // P + self._settings.late <= step
    return held, due | (self._random.random(number.size) < .2), {}

  def steps(self, count):
    """The numbers of the prompts that each step trains on."""
    for step in range(count):
      taken = self.sampler({}, self.held, step)
      self.held = taken.in_flight
      assert len(taken.kept) == P * tiny_rl.GROUP == len(taken.rollout)
      numbers = [int(r['answer']) for r in taken.batch.records]
      assert numbers == taken.batch.id[:len(numbers)].tolist()
      assert taken.kept.sum() == len(numbers) * tiny_rl.GROUP
      assert all(r['step'] == step for r in taken.batch.records)
      yield numbers


@pytest.mark.parametrize('settings', [
    SETTINGS, partial.Settings(P, P, 6, 0),
    partial.Settings(P, 3 * P + 3, 1, 5)])
def test_each_prompt_is_trained_on_once_and_in_time(settings):
  fake, seen = _Fake(settings), []
  for step, numbers in enumerate(fake.steps(30)):
    assert numbers == sorted(numbers) and len(numbers) <= P
    assert not set(seen) & set(numbers)
    seen += numbers
    ahead = -(-settings.in_flight // P) - 1
    assert all(step - fake.begun[n] <= settings.late + ahead for n in numbers)
    # No prompt waits for longer, and none is left out.
    assert set(range((step - settings.late + 1) * P)) <= set(seen)
    if settings.late == 0:
      assert numbers == [*range(step * P, (step + 1) * P)]
  assert sorted(fake.begun) == [*range(len(fake.begun))]


@pytest.mark.parametrize('changes, field', [
    (dict(in_flight=8), 'rl.in_flight: expected None'),
    (dict(partial_tokens=8, in_flight=15), 'rl.in_flight: expected at least'),
    (dict(partial_tokens=8, sampling_rounds=2), 'rl.sampling_rounds: expec'),
    (dict(partial_tokens=8, replay_routing=True), 'rl.replay_routing: expec'),
    (dict(partial_tokens=8, score_while_sampling=True),
     'rl.score_while_sampling: expec'),
    (dict(partial_tokens=0), 'rl.partial_tokens: expected')])
def test_what_does_not_go_together_is_refused(changes, field):
  config = r1_zero.get_config('mini')
  config.rl.prompts = 16
  config_lib.check(config, 1)
  config.rl.update(changes)
  with pytest.raises(errors.ConfigError, match=field):
    config_lib.check(config, 1)


@pytest.mark.parametrize('tokens, in_flight, expected', [
    (None, None, None), (R, P, None), (99, P, None),
    (R, None, (P, 2 * P, R, 0)), (R - 1, P, (P, P, R - 1, 1)),
    (1, 3 * P, (P, 3 * P, 1, R - 1))])
def test_it_is_off_where_nothing_can_be_left(tokens, in_flight, expected):
  section = types.SimpleNamespace(
      prompts=P, partial_tokens=tokens, in_flight=in_flight, response_tokens=R)
  found = partial.build(section, tiny.setup(), tiny_rl.SETTINGS, None, 0)
  assert (found and tuple(found._partial)) == expected


###############################################################################
# Whole steps
###############################################################################


def _built(workdir):
  """C = 8 of R = 24, P = 2 of M = 4 in flight; each update goes a long way."""
  config = r1_zero.get_config('mini').unlock()
  config.data.num_prompts, config.eval.problems = 8, 2
  config.rl.update(
      prompts=2, group=2, response_tokens=24, sample_chunk=24, logp_chunk=24,
      partial_tokens=8, micro_batch=None, packed_rows=None, beta=0.,
      entropy_bonus=1., cpu_threads=1)
  config.optim.update(lr=1e-2, warmup_steps=0)
  return rl.build(
      config, sharding.make_mesh({}, jax.devices()[:1]), str(workdir))


def _assert_goes_on(before, after, step):
  """What was there is as it was; counts of new tokens, of responses gone on."""
  old = ~np.repeat(before.free, 2)[:, None]
  had, drawn = before.drawn.mask & old, after.drawn
  new = drawn.mask & ~had
  assert drawn.mask[had].all() and (after.step[new] == step).all()
  for got, expected in (
      (drawn.tokens, before.drawn.tokens), (drawn.logp, before.drawn.logp),
      (after.step, before.step)):
    np.testing.assert_array_equal(got[had], expected[had])
  return new.sum(), (had.any(1) & new.any(1)).sum()


def test_a_built_stage_leaves_responses_to_the_steps_after(
    tmp_path, monkeypatch):
  """What is learned from has the log p and the age of each token's drawing."""
  stage, experiences = _built(tmp_path), []
  make = stage.step.experience
  monkeypatch.setattr(stage.step, 'experience', lambda *args: (
      experiences.append(make(*args)) or experiences[-1]))
  state, taken, ages, went_on = stage.init(), set(), [], []
  for step in range(5):
    before = jax.device_get(state.in_flight)
    state, metrics, rows = stage.step(state, step)
    after, metrics = jax.device_get((state.in_flight, metrics))
    tokens, gone_on = _assert_goes_on(before, after, step)
    assert metrics['perf/tokens'] == tokens > 0
    if step:  # all go on; or none, where enough groups are complete
      assert gone_on in (0, carried)
    went_on.append(gone_on)
    carried = metrics['sampling/carried']
    places = sorted(np.flatnonzero(after.free), key=after.number.__getitem__)
    taken |= {*after.number[places].tolist()}
    assert taken >= {*range(2 * (step - 1))}  # what is due: C is a third of R
    of = np.array([2 * place + n for place in places for n in (0, 1)], int)
    mask = after.drawn.mask[of]
    experience = jax.device_get(experiences[step][0])
    assert experience.rollout.mask.sum() == mask.sum()
    np.testing.assert_array_equal(
        experience.old_logp[:len(of)][mask], after.drawn.logp[of][mask])
    age = np.where(mask, step - after.step[of], 0)
    assert [row['age'] for row in rows] == age.max(1).tolist()
    ages += age.max(1).tolist()
    assert metrics['staleness/max'] == age.max(initial=0)
    np.testing.assert_allclose(
        metrics['staleness/mean'], age[mask].mean() if of.size else 0)
  assert sum(went_on) > 2 and 0 < max(ages) <= 3 + 2 - 2
  # The policy has moved since: log p of the present one would be others.
  assert metrics['sampling/logp_difference'] > .1


def _run(settings=SETTINGS, sizes=None, sampling=SLOTS, **fields):
  return tiny_rl.Run(sizes, settings=sampling, partial=settings, **fields)


def _without_age(rows):
  return [{name: value for name, value in row.items() if name != 'age'}
          for row in rows]


@functools.cache
def _six():
  return tiny_rl.logged(_run(), 6)


@pytest.mark.slow
def test_with_room_for_all_the_steps_are_those_without():
  state, rows, _ = tiny_rl.logged(_run(partial.Settings(P, P, R, 0)), 3)
  plain, expected, _ = tiny_rl.logged(tiny_rl.Run(), 3)
  assert [_without_age(one) for one in rows] == expected
  tiny.assert_near(state._replace(in_flight=None), plain)


@pytest.mark.slow
@pytest.mark.parametrize('settings', [
    SETTINGS, partial.Settings(P, 3 * P, 1, 5)])
def test_a_frozen_policy_says_the_same(settings, monkeypatch):
  """In whatever steps: each prompt's group is that of the plain sampler."""
  monkeypatch.setattr(tiny_rl, 'OPTIMIZER', optim.make_optimizer(
      lr=0., steps=100, weight_decay=0.))
  _, rows, _ = tiny_rl.logged(_run(settings), 9)
  _, plain, _ = tiny_rl.logged(tiny_rl.Run(), 9)
  expected = {}  # prompts come again in later batches, under other streams
  for row in sum(plain, []):
    expected.setdefault(row['id'], []).append(row['response'])
  found = {}
  for row in sum(rows, []):
    found.setdefault(row['id'], []).append(row['response'])
  assert sum(map(len, found.values())) >= 3 * P * tiny_rl.GROUP
  for number, responses in found.items():
    groups = np.reshape(expected[number], (-1, tiny_rl.GROUP)).tolist()
    for group in np.reshape(responses, (-1, tiny_rl.GROUP)).tolist():
      assert group in groups


@pytest.mark.slow
def test_what_is_logged_of_a_step():
  _, rows, history = _six()
  assert [len(one) // tiny_rl.GROUP for one in rows] == [
      metrics['sampling/groups'] for metrics in history]
  assert len(rows[-1]) == P * tiny_rl.GROUP
  for one, metrics in zip(rows, history):
    assert metrics['staleness/max'] == max(
        (row['age'] for row in one), default=0) <= 3
    assert 0 <= metrics['staleness/mean'] <= metrics['staleness/max']
    assert metrics['perf/tokens'] > 0
  # What is drawn is trained on, or still in flight.
  state = _six()[0].in_flight
  left = state.drawn.mask[~np.repeat(state.free, tiny_rl.GROUP)].sum()
  assert left + sum(row['tokens'] for row in sum(rows, [])) == sum(
      metrics['perf/tokens'] for metrics in history)
  drawn = state.drawn.mask
  assert (state.step[drawn] >= 0).all() and (state.step[drawn] <= 5).all()


@pytest.mark.slow
def test_old_log_probabilities_are_those_of_the_policy_that_drew_each_token():
  """A token's log p is not scored again when its response goes on."""
  run = _run()
  state, seen = run.init(), []
  for step in range(5):
    before = jax.device_get(state.in_flight)
    state, _, _ = run.learner(state, step)
    after = jax.device_get(state.in_flight)
    kept = before.drawn.mask & ~np.repeat(before.free, tiny_rl.GROUP)[:, None]
    np.testing.assert_array_equal(
        after.drawn.logp[kept], before.drawn.logp[kept])
    np.testing.assert_array_equal(after.step[kept], before.step[kept])
    assert (after.step[after.drawn.mask & ~kept] == step).all()
    seen.append(kept.sum())
  assert max(seen) > 0


@pytest.mark.slow
@pytest.mark.parametrize('sizes', [
    dict(data=8), dict(data=2, fsdp=2, tensor=2)])
def test_a_mesh_takes_the_steps_of_one_device(sizes):
  """With a slot for each; fewer fill in another order on each device."""
  state, rows, history = tiny_rl.logged(_run(sampling=tiny_rl.SETTINGS), 4)
  got, same, figures = tiny_rl.logged(
      _run(sizes=sizes, sampling=tiny_rl.SETTINGS), 4)
  assert same == rows
  tiny.assert_near(got, state)
  for one, expected in zip(figures, history):
    for name in ('staleness/mean', 'staleness/max', 'sampling/carried'):
      np.testing.assert_allclose(one[name], expected[name], atol=1e-6)


@pytest.mark.slow
def test_nothing_compiles_again():
  run = _run()
  state, _, _ = run.learner(run.init(), 0)
  # A program of other tests may be counted, too.
  sizes = lambda: [
      f._cache_size() for f in (run.partial._sample, run.partial._take)]
  first = sizes()
  assert min(first) > 0
  for step in range(1, 5):
    state, _, _ = run.learner(state, step)
    assert sizes() == first


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_the_same(tmp_path):
  run, settings = _run(), loop.Settings(checkpoint_every_steps=1, keep=2)

  class Crash(Exception):
    pass

  def crash(index):
    if index == 3:
      raise Crash

  train = lambda name, on_step: loop.train(
      run.stage(5, on_step), settings, str(tmp_path / name),
      dict(stage='rl', seed=0, steps=5))
  with pytest.raises(Crash):
    train('stopped', crash)
  begins = []
  train('stopped', begins.append)
  train('whole', lambda index: None)
  assert begins == [3, 4]
  found = []
  for name in ('stopped', 'whole'):
    saves = checkpoint.Checkpointer(tmp_path / name / 'checkpoints', keep=2)
    found.append(jax.device_get(saves.restore_latest(run.abstract)))
    saves.close()
  jax.tree.map(np.testing.assert_array_equal, *found)
  assert found[0][0].in_flight.drawn.mask.any()
  rows = [files.read_rows(tmp_path / name / 'rollouts.jsonl')
          for name in ('stopped', 'whole')]
  assert rows[0] == rows[1] and len(rows[0]) > P * tiny_rl.GROUP


PROGRAM = """
import jax
import test_partial as test

run = test._run(sizes=dict(data=4), sampling=test.tiny_rl.SETTINGS)
state, rows, _ = test._rows_of_all(run, 3)
said = [[row['response'] for row in one] for one in rows]
"""


def _rows_of_all(run, count):
  """As `_rows`, without what only one process has."""
  state, rows = run.init(), []
  for step in range(count):
    state, _, new = run.learner(state, step)
    rows.append(new)
  return None, rows, None


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one():
  _, rows, _ = tiny_rl.logged(_run(sampling=tiny_rl.SETTINGS), 3)
  assert hosts.run(PROGRAM) == [
      [[row['response'] for row in one] for one in rows]] * 2


@pytest.mark.slow
@pytest.mark.parametrize('fields', [
    dict(critic=dict(gamma=1., lam=.95, whiten=True, value_clip=None),
         objective=tiny_rl.OBJECTIVE._replace(advantage='gae')),
    dict(objective=tiny_rl.OBJECTIVE._replace(correction='token_truncate')),
    dict(mask_truncated=True, epochs=2,
         objective=tiny_rl.OBJECTIVE._replace(mini_batches=2)),
    dict(lora=dict(rank=2, alpha=4., targets=('attention/*',))),
    dict(sampling=SLOTS._replace(top_k=4, keep_support=True))])
def test_with_what_else_a_step_may_have(fields):
  state, rows, history = tiny_rl.logged(_run(**fields), 4)
  assert len(rows[-1]) == P * tiny_rl.GROUP
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
  if fields.get('objective', tiny_rl.OBJECTIVE).correction:
    assert history[-1]['sampling/kl'] > 1e-4  # of earlier policies
    assert history[-1]['policy/logp_drift'] < 1e-5  # of the present one
