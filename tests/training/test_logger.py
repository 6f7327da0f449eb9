"""What a step's row says of its time, whether the step was waited for or not.

The clock is turned by hand: a step takes 30 seconds, an evaluation 7, a save 5.
A value that is not ready turns it when it is asked for, as a device would.
"""

import types as pytypes

import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.training import files
from r1jax.training import logger

STEP, EVALUATION, SAVE = 30., 7., 5.


class Clock:
  now = 100.

  def monotonic(self):
    return self.now


class Device:
  """Works on steps one after the other; `value(k)` is done when step k is."""

  def __init__(self, clock, waits):
    self._clock, self._waits, self._free_at = clock, waits, clock.now

  def step(self):
    """Dispatches a step; a stage that waits returns when it is done."""
    done = self._free_at = max(self._clock.now, self._free_at) + STEP
    value = Value(self._clock, done)
    if self._waits:
      value.block_until_ready()
    return value


class Value:
  """A zero that is there when its step is done."""

  def __init__(self, clock, done):
    self._clock, self._done = clock, done

  def is_ready(self):
    return self._clock.now >= self._done

  def block_until_ready(self):
    self._clock.now = max(self._clock.now, self._done)
    return self

  def __array__(self, dtype=None, copy=None):
    self.block_until_ready()
    return np.zeros((), dtype or np.float32)

  def __jax_array__(self):
    return jnp.zeros(())


@pytest.fixture(name='clock')
def _clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(logger, 'time', clock)
  return clock


def _log(workdir, **kwargs):
  return logger.Log(
      workdir, {'loss': 'loss'}, start_step=0, tensorboard=False,
      **dict(total_steps=6, max_skipped_steps=2) | kwargs)


def _state(skipped):
  return pytypes.SimpleNamespace(skipped=skipped, critic=None)


def _rows(workdir):
  return files.read_rows(workdir / 'metrics.jsonl')


@pytest.mark.parametrize('waits', [True, False], ids=['waits', 'dispatches'])
def test_the_time_of_a_step_is_its_own(tmp_path, clock, waits):
  """Of every step, the last included, whatever happens between them."""
  device, log = Device(clock, waits), _log(tmp_path)
  for step in range(6):
    value = device.step()
    if step == 3:
      with log.aside(value):
        clock.now += EVALUATION
    log.take(step, {'loss': value, 'perf/tokens': 600}, _state(value))
    if step in (2, 5):
      with log.aside(value):
        assert len(_rows(tmp_path)) == step + 1  # on disk before the save
        clock.now += SAVE
  log.close()
  rows = _rows(tmp_path)
  assert [row['time/step_seconds'] for row in rows] == [STEP] * 6
  assert [row['perf/tokens_per_second'] for row in rows] == [600 / STEP] * 6


def test_figures_that_are_there_are_reported_at_once(tmp_path, clock):
  log = _log(tmp_path)
  log.take(0, {'loss': 1.}, _state(Device(clock, True).step()))
  assert [row['step'] for row in _rows(tmp_path)] == [0]
  log.close()


def test_figures_on_their_way_are_not_waited_for(tmp_path, clock):
  log, device = _log(tmp_path), Device(clock, False)
  for step in range(3):
    value = device.step()
    log.take(step, {'loss': value}, _state(value))
    assert clock.now == 100 + step * STEP  # the step itself is still to come
    assert [row['step'] for row in _rows(tmp_path)] == list(range(step))
  log.close()


def test_the_progress_line_shows_the_step_that_was_taken(
    tmp_path, clock, capsys):
  log = _log(tmp_path, total_steps=1)
  log.take(0, {'loss': 1.25}, _state(Device(clock, True).step()))
  assert capsys.readouterr().err == 'step 1/1  loss 1.25\n'
  log.close()


def test_a_critic_s_skipped_updates_count_too(tmp_path):
  log, state = _log(tmp_path), _state(jnp.int32(0))
  state.critic = _state(jnp.int32(3))
  log.take(0, {}, state)
  with pytest.raises(logger.Diverged):
    log.take(1, {}, state)
  log.close()


def test_too_many_skipped_updates_in_a_row(tmp_path):
  log = _log(tmp_path)
  log.take(0, {}, _state(jnp.int32(1)))
  log.take(1, {}, _state(jnp.int32(2)))
  with pytest.raises(logger.Diverged, match='step 1: 2 updates in a row'):
    log.take(2, {}, _state(jnp.int32(3)))
  log.close()
  assert [row['step'] for row in _rows(tmp_path)] == [0, 1]
