"""Tokens are written at their places, wherever these lie."""

import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import late_write

LAYERS, HEADS = 3, 1


def _written(rows, size, room, places, token, dtype):
  """What is written of random arrays; and the same by hand."""
  rng = np.random.default_rng(0)
  past, new = (jnp.asarray(rng.normal(size=shape), dtype) for shape in (
      (LAYERS, rows, HEADS, size, room), (LAYERS, rows, HEADS, size)))
  filled = rng.integers(room, size=rows)
  for row, place in places.items():
    filled[row] = place
  expected = np.array(past)
  for row, place in enumerate(filled):
    expected[:, row, :, :, place] = new[:, row]
  written = late_write.write(
      jnp.moveaxis(past, -1, token), new, jnp.asarray(filled, jnp.int32),
      token=token, interpret=True)
  return jnp.moveaxis(written, token, -1), expected


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_each_row_has_its_token_at_its_place(dtype, monkeypatch):
  """In rows and tokens beyond a tile of 128, and layers beyond a block."""
  monkeypatch.setattr(
      late_write, '_BYTES', 2 * 128 * HEADS * 8 * jnp.dtype(dtype).itemsize)
  np.testing.assert_array_equal(*_written(
      130, 8, 200, {0: 0, 1: 127, 2: 128, 3: 199, 127: 199, 128: 1, 129: 130},
      -1, dtype))


def test_a_cache_may_have_less_room_than_a_block():
  for size, token in ((8, -1), (128, -2)):
    np.testing.assert_array_equal(
        *_written(6, size, 5, {0: 0, 1: 4}, token, 'bfloat16'))


def test_a_token_that_fills_a_line_is_written_alone(monkeypatch):
  """Beyond the 16 lines that lie together, and in layers beyond a block."""
  monkeypatch.setattr(late_write, '_BYTES', 2 * 16 * HEADS * 128 * 2)
  np.testing.assert_array_equal(*_written(
      6, 128, 40, {0: 0, 1: 15, 2: 16, 3: 39}, -2, 'bfloat16'))
