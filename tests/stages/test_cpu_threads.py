"""Parts of a step in threads of one CPU: samples and scores stay the same."""

import functools

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import sections
from r1jax.parallel import sharding
from r1jax.stages import rollouts
from r1jax.stages import step_programs
from r1jax.types import Rollout

CRITIC = dict(gamma=1., lam=.95, whiten=True, value_clip=.2)


@functools.cache
def _taken(threads, critic=False, slots=None, **objective):
  """Two steps: parameters of policy and critic, metrics, rows."""
  run = tiny_rl.Run(
      objective=tiny_rl.OBJECTIVE._replace(**objective),
      settings=tiny_rl.SETTINGS._replace(slots=slots, cpu_threads=threads),
      critic=CRITIC if critic else None)
  state, rows, history = tiny_rl.logged(run, 2)
  return (state.params, critic and state.critic.params), rows, [
      {name: value for name, value in row.items()
       if not name.startswith(('time', 'timing', 'began', 'rolled'))}
      for row in history]


@pytest.mark.parametrize('threads, changes', [
    (2, dict(micro_batch=4, packed_rows=2, slots=8)),
    (2, dict(critic=True, advantage='gae', mini_batches=2)),
    (4, dict(aggregate='token_mean', drop_equal_groups=True, micro_batch=8))],
                         ids=['slots and packed rows', 'PPO', 'four'])
def test_a_step_in_parts_is_that_of_the_whole(threads, changes):
  got, want = (_taken(count, **changes) for count in (threads, 1))
  tiny.assert_near(got[0], want[0], 1e-4)
  tiny.assert_near(got[2], want[2], 1e-4)
  assert [[row['response'] for row in rows] for rows in got[1]] == [
      [row['response'] for row in rows] for rows in want[1]]


def test_parts_divide_a_batch_that_the_threads_do_not():
  """Of six prompts, in four threads: three parts of two."""
  placed = tiny.setup()
  batch = tiny_rl.draw(0, 6)
  got, want = (jax.device_get(rollouts.Sampler(
      placed, tiny_rl.SETTINGS._replace(cpu_threads=count))(
          tiny.placed(placed), batch, 0, 0)) for count in (4, 1))
  assert isinstance(got, Rollout)
  tiny.assert_near(got.logp, want.logp)
  jax.tree.map(np.testing.assert_array_equal, got._replace(logp=()),
               want._replace(logp=()))


@pytest.mark.parametrize('parts, fields', [
    (2, dict(micro_batch=16)), (1, dict(micro_batch=32)),
    (1, dict(micro_batch=16, packed_rows=2)), (4, dict(cpu_threads=4)),
    (2, dict(cpu_threads=3)),
    (2, dict(prompts=6, micro_batch=3, cpu_threads=4))])
def test_parts_have_whole_groups_and_whole_micro_batches(parts, fields):
  section = sections.rl(**dict(prompts=8, group=4, cpu_threads=2) | fields)
  one, eight = (sharding.make_mesh({'data': n}, jax.devices()[:n])
                for n in (1, 8))
  assert step_programs.measured_at_once(section, one) == parts
  assert step_programs.measured_at_once(section, eight) == 1


@pytest.mark.parametrize('slots, threads, parts, each', [
    (1, 2, 1, 1), (3, 2, 2, 1), (3, 4, 2, 1), (8, 2, 2, 4), (None, 3, 2, None)])
def test_parts_have_no_more_slots_than_there_are(slots, threads, parts, each):
  """Of eight prompts."""
  settings = tiny_rl.SETTINGS._replace(slots=slots, cpu_threads=threads)
  one = sharding.make_mesh({'data': 1}, jax.devices()[:1])
  assert rollouts.sampled_at_once(settings, one, 8) == (
      parts, settings._replace(slots=each, cpu_threads=1))
