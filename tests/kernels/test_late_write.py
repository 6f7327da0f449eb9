"""Tokens are written at their places, wherever these lie."""

import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import late_write

LAYERS, ROWS, HEADS, SIZE, ROOM = 3, 130, 1, 8, 200


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_each_row_has_its_token_at_its_place(dtype, monkeypatch):
  """In rows and tokens beyond a tile of 128, and layers beyond a block."""
  item = jnp.dtype(dtype).itemsize
  monkeypatch.setattr(late_write, '_BYTES', 2 * 128 * HEADS * SIZE * item)
  rng = np.random.default_rng(0)
  past, new = (jnp.asarray(rng.normal(size=shape), dtype) for shape in (
      (LAYERS, ROWS, HEADS, SIZE, ROOM), (LAYERS, ROWS, HEADS, SIZE)))
  filled = rng.integers(ROOM, size=ROWS)
  filled[[0, 1, 2, 3, 127, 128, 129]] = 0, 127, 128, 199, 199, 1, 130
  expected = np.array(past)
  for row, place in enumerate(filled):
    expected[:, row, :, :, place] = new[:, row]
  np.testing.assert_array_equal(late_write.write(
      past, new, jnp.asarray(filled, jnp.int32), interpret=True), expected)
