"""A decoder that compiles in a second, and what to feed it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from r1jax import models
from r1jax.models import architecture
from r1jax.models import lora as lora_lib
from r1jax.parallel import sharding
from r1jax.stages import train_state
from r1jax.types import Prompts

SHAPE = dict(vocab=30, width=16, layers=2, heads=4, kv_heads=2, head_size=4,
             mlp=24, max_len=64)
EOS = 1


def config(**switches) -> architecture.Config:
  return architecture.Config(**(SHAPE | switches))


@functools.cache
def model(**switches) -> models.Model:
  return models.build(config(**switches))


@functools.cache
def params(seed=0, **switches):
  """Random parameters, none at the 0 or 1 that a model begins with."""
  rng = np.random.default_rng(seed)

  def one(path, leaf):
    center = jax.tree_util.keystr(path[-1:], simple=True) == 'scale'
    return jnp.asarray(center + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(
      one, jax.eval_shape(model(**switches).init, jax.random.key(0)))


def prompts(lengths=(3, 5, 1, 4), padded=5, pad=0, seed=0) -> Prompts:
  """Random prompts; their ids are not their places."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(2, SHAPE['vocab'], (len(lengths), padded))
  length = np.array(lengths, np.int32)
  tokens[np.arange(padded) >= length[:, None]] = pad
  return Prompts(tokens.astype(np.int32), length,
                 np.arange(len(lengths), dtype=np.int32) * 7 + 3)


def setup(sizes=None, lora=None, **switches) -> train_state.PlacedModel:
  """The model on a mesh of all or the first devices; without `sizes`, of one.

  `lora` has the fields of a config's section of that name.
  """
  sizes = sizes or {}
  count = math.prod(sizes.values())
  mesh = sharding.make_mesh(
      sizes, None if count == jax.device_count() else jax.devices()[:count])
  return train_state.place_model(
      config(**switches), mesh, common.RULES, lora_lib.settings(lora))


def placed(setup: train_state.PlacedModel, **switches):
  """A copy of the random parameters where `setup` wants them."""
  return jax.device_put(jax.tree.map(jnp.copy, params(**switches)),
                        train_state.shardings_of(setup.params))


def assert_near(got, expected, tolerance=1e-5):
  """Trees agree within `tolerance` of each array's largest entry, or of 1."""
  def one(path, a, b):
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(
        a, b, rtol=0, atol=tolerance * max(1., np.abs(b).max(initial=0)),
        err_msg=jax.tree_util.keystr(path))
  jax.tree_util.tree_map_with_path(one, got, expected)
