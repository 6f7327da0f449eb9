"""How often the sampler's loops run, against the sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.kernels import attention
from r1jax.kernels import continuous_batching
from r1jax.kernels import group_sampling
from r1jax.parallel import sharding
from r1jax.plan import schedule
from r1jax.stages import micro_batches
from r1jax.types import Rollout

PROMPTS, GROUP, RESPONSE = (3, 5, 1, 4, 2, 5, 3, 4), 3, 12


def test_all_responses_are_as_long_as_the_limit():
  np.testing.assert_array_equal(schedule.lengths(3, None, 9), [9, 9, 9])


@pytest.mark.parametrize('mean', [1, 40, 170, 1000, 1024])
def test_lengths_have_the_mean_that_is_expected(mean):
  found = schedule.lengths(512, mean, 1024)
  assert found.mean() == pytest.approx(mean, abs=.1)
  assert found.min() >= 1 and found.max() <= 1024


def test_lengths_are_log_normal():
  found = np.log(schedule.lengths(512, 500, 1_000_000))
  assert found.std() == pytest.approx(1, abs=.05)
  assert np.median(found) == pytest.approx(np.log(500) - .5, abs=.05)
  assert abs(np.corrcoef(found, np.arange(512))[0, 1]) < .1


def test_the_longest_response_ends_the_loops():
  trips = schedule.together(np.array([2, 9, 5]), [4, 8, 16, 32])
  assert [trips[f'tokens_{size}'] for size in (4, 8, 16, 32)] == [4, 4, 1, 0]
  assert schedule.steps(trips) == 9


def test_a_cache_is_read_as_far_as_it_is_filled(monkeypatch):
  monkeypatch.setattr(attention, 'BLOCK', 3)
  trips = schedule.together(np.array([2, 8]), [4, 16])
  assert trips['tokens_4/cache_blocks'] == (1 + 1 + 1 + 2) / 4
  assert trips['tokens_16/cache_blocks'] == (2 + 2 + 3 + 3) / 4


@pytest.mark.parametrize('prompts, packed_rows, size', [
    (8, 2, 4), (2, 1, 4)])
def test_micro_batches_of_packed_rows(prompts, packed_rows, size):
  """As they are made, on two devices; those of two parts in the mean."""
  place = tiny.setup(dict(data=2)).model.place
  lengths = schedule.lengths(24, 4, RESPONSE)
  def count(first, length):
    rollout = Rollout(
        tiny.prompts((3,) * first), *[jnp.zeros((length.size, RESPONSE))] * 3)
    return int(micro_batches.make(rollout._replace(
        mask=jnp.arange(RESPONSE) < length[:, None]), (), size, packed_rows,
                                  place).count)
  found = lambda parts: schedule.packed(
      lengths, prompts, parts, 2, RESPONSE, packed_rows, size)['micro_batches']
  assert found(1) == count(prompts, lengths)
  assert found(2) == np.mean([
      count(prompts // 2, part) for part in np.split(lengths, 2)])


def test_slots_are_fewer_once_the_last_response_has_entered():
  """The fifth enters second; from then on a fourth of the slots is enough."""
  trips = schedule.in_slots(np.array([1, 1, 1, 1, 5]), 1, [(4, 5), (1, 5)])
  assert (trips['slots_4_5'], trips['slots_1_5']) == (2, 4)


@pytest.mark.parametrize('slots, sizes', [
    (16, dict(data=2)), pytest.param(3, {}, marks=pytest.mark.slow)])
def test_slots_are_taken_as_the_sampler_takes_them(slots, sizes, monkeypatch):
  """Its steps, one by one, and the most that is in a slot before each."""
  monkeypatch.setattr(schedule.attention, 'BLOCK', 5)
  setup = tiny.setup(sizes)
  how = dict(eos_ids=(tiny.EOS, 7), temperature=.8)
  prompts = sharding.from_host(tiny.prompts(PROMPTS), setup.mesh)
  keys = group_sampling.sample_keys(0, 0, prompts.id, GROUP)
  params = setup.model.prepare(tiny.placed(setup))
  begun, state = jax.jit(lambda params: continuous_batching.begin(
      setup.model, params, prompts, keys, RESPONSE, 0, False, slots))(params)
  place, found = setup.model.place, {}
  numbers = continuous_batching.sizes(place, slots, RESPONSE, chunk=3)
  for size in numbers:
    state = continuous_batching.resize(place, state, *size)
    step = jax.jit(functools.partial(
        continuous_batching.advance, setup.model, params, begun, slots=slots,
        ticks=jnp.ones((), jnp.int32), **how))
    filled = []
    while not continuous_batching.over(place, state, slots):
      filled.append(int(state.index.max()))
      state = step(state)
    name = 'slots_{}_{}'.format(*size)
    found |= {name: len(filled), f'{name}/cache_blocks':
              pytest.approx(np.mean(np.array(filled) // 5 + 1))}
  lengths = np.array(state.drawn.mask).sum(1)
  assert lengths.min() < RESPONSE / 3 and lengths.max() == RESPONSE
  devices = sizes.get('data', 1)
  assert schedule.in_slots(lengths, devices, numbers) == found
  assert schedule.steps(found) < (
      lengths.sum() / slots + RESPONSE * 1.5)  # no slot stands idle
