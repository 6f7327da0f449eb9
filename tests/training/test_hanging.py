"""What counts as a step that hangs."""

import threading
import time

import jax
import pytest

from r1jax.training import hanging
from r1jax.training import timing

SECONDS = .3


@pytest.fixture(name='watch')
def _watch(monkeypatch):
  """A watch of several processes, its clock, and what it has found."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  clock, found = timing.Clock(), []
  told = threading.Event()
  def tell(words):
    found.append(words)
    told.set()
  with hanging.Watch(SECONDS, clock, tell) as watch:
    yield watch, clock, found, told


def test_a_step_without_end_is_found_once(watch):
  watch, _, found, told = watch
  watch.begin(6)
  assert told.wait(20)
  time.sleep(2 * SECONDS)
  words, = found
  assert words.startswith('step 7, begun at ') and words.endswith(
      ' has not ended within config.hang_seconds = 0.3')


def test_the_first_step_and_what_is_done_aside_may_take_longer(watch):
  watch, clock, found, told = watch
  time.sleep(2 * SECONDS)
  watch.begin(1)
  with clock.aside():
    time.sleep(3 * SECONDS)
    assert not found
  assert told.wait(20)


def test_each_step_has_its_own_time(watch):
  watch, _, found, told = watch
  for step in range(24):
    watch.begin(step)
    assert not told.wait(SECONDS / 6)
  assert not found


@pytest.mark.parametrize('seconds, processes', [(0., 2), (.05, 1)])
def test_without_a_bound_or_alone_nothing_is_watched(
    monkeypatch, seconds, processes):
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  found = []
  with hanging.Watch(seconds, timing.Clock(), found.append) as watch:
    watch.begin(1)
    time.sleep(.2)
  assert not found
