"""The clock of a run: asides, parts that add up, resumes."""

import time
import types

import jax.numpy as jnp
import pytest

from r1jax.training import timing


class Hands:
  """A clock that is turned by hand."""
  now = 100.

  def __call__(self):
    return self.now


@pytest.fixture(name='hands')
def _hands():
  return Hands()


def test_a_step_has_no_part_of_what_is_done_aside(hands):
  clock = timing.Clock(read=hands)
  hands.now += 7  # restoring a checkpoint
  clock.begin_steps()
  for seconds, aside in ((4, 0), (2, 50), (3, 60)):
    hands.now += seconds
    ended = clock.step_time()
    with clock.aside():
      hands.now += aside
    assert clock.end_step(ended) == {'time/step_seconds': seconds}


def test_parts_add_up_to_the_step(hands):
  clock = timing.Clock(read=hands)
  for rollout, update, aside in ((4, 2, 0), (5, 3, 10), (6, 1, 20)):
    hands.now += rollout
    reading = hands()
    hands.now += update
    rolled_out = clock.step_time(reading)  # as it was read before
    with clock.aside():  # an evaluation: the step ends behind it
      hands.now += aside
    assert clock.end_step(clock.step_time(), rolled_out) == {
        'timing/rollout_seconds': rollout, 'timing/update_seconds': update,
        'time/step_seconds': rollout + update}


def test_an_aside_that_fails_is_left_out_too(hands):
  clock = timing.Clock(read=hands)
  with pytest.raises(ValueError):
    with clock.aside():
      hands.now += 5
      raise ValueError
  assert clock.step_time() == 100


def test_seconds_are_those_of_all_resumes_with_all_that_was_done(hands):
  clock = timing.Clock(20., read=hands)
  with clock.aside():
    hands.now += 5
  hands.now += 1
  assert clock.seconds() == 26


def test_waiting_gives_the_reading_behind_it():
  before = timing.now()
  assert before <= timing.wait_for({'x': jnp.ones(3), 'none': None}) <= (
      timing.now())
  waited = []
  timing.wait_for(types.SimpleNamespace(
      block_until_ready=lambda: waited.append(1)))
  assert waited
  before = timing.now()
  time.sleep(.02)  # no work of this process
  assert timing.now() - before > .015
