"""Parts of a batch, each dispatched by a thread of its own."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import errors
from r1jax.parallel import sharding
from r1jax.parallel import threads


def test_each_call_has_a_thread_that_no_other_has():
  meet = threading.Barrier(3, timeout=60)  # all three are called at once
  found = [threads.at_once(
      lambda number: (number, meet.wait() >= 0, threading.get_ident()), 3)
           for _ in range(2)]
  assert found[0] == found[1]  # programs of a thread keep their order
  assert [number for number, *_ in found[0]] == [0, 1, 2]
  assert len({thread for *_, thread in found[0]}) == 3


def test_an_error_is_raised_when_all_calls_have_ended():
  ended = []

  def call(number):
    if number == 0:
      raise errors.RunError('no memory')
    time.sleep(.05)
    ended.append(number)

  with pytest.raises(errors.RunError, match='no memory'):
    threads.at_once(call, 2)
  assert ended == [1]


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_parts_are_joined_in_their_order(parts):
  calls = []

  def scaled(name, by, tree):
    calls.append(tree['x'].shape)  # while it is traced
    return {'y': by * tree['x'], name: tree['n'] + 1}

  program = threads.in_parts(scaled, parts, 2, static_argnums=(0,))
  tree = {'x': jnp.arange(16.).reshape(8, 2), 'n': jnp.arange(4)}
  for _ in range(3):
    got = program('m', 3., tree)
  np.testing.assert_array_equal(got['y'], 3 * tree['x'])
  np.testing.assert_array_equal(got['m'], tree['n'] + 1)
  assert calls == [(8 // parts, 2)]  # one program serves all parts


def test_cores_are_shared_on_one_cpu_alone():
  devices = jax.devices()
  for count, rows, parts in (
      (1, 9, 3), (1, 8, 2), (1, 7, 1), (1, 2, 2), (2, 9, 1)):
    mesh = sharding.make_mesh({'data': count}, devices[:count])
    assert threads.usable(mesh, 3, rows) == parts
