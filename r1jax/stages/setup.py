"""What every training stage is built from: a model on a mesh, its optimizer.

The one place where a config's model, mesh, rules and optimizer sections turn
into functions and shardings.
"""

import dataclasses
import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import config as config_lib
from r1jax import models
from r1jax.models import packaged
from r1jax.models import presets
from r1jax.models import shape as shape_lib
from r1jax.parallel import sharding
from r1jax.training import checkpoint
from r1jax.training import optim
from r1jax.types import Params, TrainState


class Setup(NamedTuple):
  """A model whose parameters have a place on a mesh."""
  model: models.Model
  mesh: jax.sharding.Mesh
  params: Params  # shapes with shardings
  replicated: jax.sharding.NamedSharding
  batch: jax.sharding.NamedSharding  # first axis over the batch axes


def model_config(config) -> shape_lib.Config:
  """`config.model`: a preset's name and what differs from it, or all fields."""
  fields = {k: v for k, v in config.model.items() if v is not None}
  preset = fields.pop('preset', None)
  if preset is not None:
    if preset not in presets.PRESETS:
      raise config_lib.ConfigError(
          f'config.model.preset: {preset!r} is not a preset'
          + config_lib.nearest(preset, presets.PRESETS))
    return dataclasses.replace(presets.PRESETS[preset], **fields)
  return shape_lib.Config(**fields)


def make(config, mesh: jax.sharding.Mesh) -> Setup:
  """Builds the model of `config` for `mesh`; nothing is computed yet."""
  shape = model_config(config)
  if config.get('rl'):
    length = config.rl.prompt_tokens + config.rl.response_tokens
    if length > shape.max_len:
      raise config_lib.error(
          'rl.response_tokens (+ rl.prompt_tokens)',
          f'at most the model\'s {shape.max_len} tokens', length)
  rules = tuple((name, axis) for name, axis in config.rules)
  constrain = functools.partial(sharding.constrain, mesh=mesh, rules=rules)
  model = models.build(shape, lambda x, axes: constrain(x, axes))
  params = jax.eval_shape(model.init, jax.random.key(0))
  params = sharding.abstract(
      params, sharding.shardings(model.axes(), params, mesh, rules))
  return Setup(model, mesh, params, sharding.replicated(mesh),
               sharding.batch(mesh))


def places(tree: Any) -> Any:
  """The shardings of a tree of arrays or shapes."""
  return jax.tree.map(lambda x: x.sharding, tree)


def init_params(setup: Setup, init_from: str | None, seed: int) -> Params:
  """Parameters on their mesh.

  Args:
    setup: from `make`.
    init_from: None for random ones, 'mini' or an .npz file, or the workdir of
      another stage, whose last good checkpoint is read.
    seed: of random ones.
  """
  where = places(setup.params)
  if init_from is None:
    # One stream whatever the mesh: the numbers do not depend on where they go.
    return jax.jit(setup.model.init, out_shardings=where)(jax.random.key(seed))
  if init_from == 'mini' or init_from.endswith('.npz'):
    params = packaged.load(init_from, setup.model.config, setup.params)
    return jax.tree.map(_place, params, where)
  if not os.path.isdir(init_from):
    raise config_lib.error(
        'init_from', "'mini', an .npz file or the workdir of a stage",
        init_from)
  return checkpoint.restore_params(os.path.abspath(init_from), setup.params)


def _place(array: np.ndarray, where: jax.sharding.Sharding) -> jax.Array:
  return jax.make_array_from_callback(
      array.shape, where, lambda index: array[index])


def optimizer(config, updates: int) -> optim.Optimizer:
  """The optimizer of `config.optim` for a run of so many updates."""
  fields = dict(config.optim)
  del fields['max_skipped_steps']
  return optim.make(kind=fields.pop('schedule'), steps=updates, **fields)


def abstract_state(setup: Setup, tx: optim.Optimizer, ref: bool) -> TrainState:
  """The shapes and places of a TrainState, with a reference policy or not."""
  scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=setup.replicated)
  opt_state = sharding.abstract(
      jax.eval_shape(tx.tx.init, setup.params),
      optim.state_shardings(tx.tx, setup.params, places(setup.params),
                            setup.replicated))
  return TrainState(scalar, setup.params, opt_state,
                    setup.params if ref else None, scalar)


def init_state(setup: Setup, tx: optim.Optimizer, abstract: TrainState,
               params: Params) -> TrainState:
  """The state at step 0; a reference policy begins as a copy of the policy."""
  def make_state(params):
    zero = jnp.zeros((), jnp.int32)
    ref = None if abstract.ref is None else jax.tree.map(jnp.copy, params)
    return TrainState(zero, params, tx.tx.init(params), ref, zero)
  return jax.jit(make_state, out_shardings=places(abstract))(params)
