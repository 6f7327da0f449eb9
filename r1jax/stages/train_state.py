"""What every training stage is built from: a model on a mesh, its optimizer.

The one place where a config's model, mesh, rules and optimizer sections turn
into functions and shardings.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax import models
from r1jax.models import lora
from r1jax.parallel import sharding
from r1jax.stages import model_source
from r1jax.training import optim
from r1jax.types import Params, TrainState


class PlacedModel(NamedTuple):
  """A model whose parameters have a place on a mesh."""
  model: models.Model
  mesh: jax.sharding.Mesh
  params: Params  # shapes with shardings
  trained: Params  # the same, or those of LoRA's factors
  lora: lora.Settings | None
  replicated: jax.sharding.NamedSharding
  batch: jax.sharding.NamedSharding  # first axis over the batch axes


def place_model(config, mesh: jax.sharding.Mesh) -> PlacedModel:
  """Builds the model of `config` for `mesh`; nothing is computed yet."""
  shape = model_source.model_config(config)
  shape.check()
  if mesh.shape['expert'] > 1 and shape.moe is None:
    raise errors.expected('mesh.expert', '1: the model has no experts, its '
                           'devices would all do the same work',
                           mesh.shape['expert'])
  adapter = lora.settings(config.get('lora'))
  if adapter:
    shape = dataclasses.replace(shape, lora_scale=adapter.scale)
  lengths = {}
  if config.get('rl'):
    lengths['rl.response_tokens (+ rl.prompt_tokens)'] = (
        config.rl.prompt_tokens + config.rl.response_tokens)
  if config.get('lm'):
    lengths['lm.length'] = config.lm.length
  for field, length in lengths.items():
    if length > shape.max_len:
      raise errors.expected(
          field, f"at most the model's {shape.max_len} tokens", length)
  rules = tuple((name, axis) for name, axis in config.rules)
  model = models.build(shape, sharding.Placement(mesh, rules))
  place = lambda shapes, axes: sharding.abstract_arrays(
      shapes, sharding.shardings(axes, shapes, mesh, rules))
  params = place(jax.eval_shape(model.init, jax.random.key(0)), model.axes())
  trained = params
  if adapter:
    trained = place(
        jax.eval_shape(functools.partial(lora.init, shape, adapter), params,
                       jax.random.key(0)),
        lora.axes(shape, adapter, params, model.axes()))
  return PlacedModel(model, mesh, params, trained, adapter,
               sharding.replicated(mesh), sharding.batch_sharding(mesh))


def shardings_of(tree: Any) -> Any:
  """The shardings of a tree of arrays or shapes."""
  return jax.tree.map(lambda x: x.sharding, tree)


def init_params(setup: PlacedModel, init_from: str | None, seed: int) -> Params:
  """Parameters on their mesh.

  Args:
    setup: from `make`.
    init_from: what model_source.resolve knows; None for random ones.
    seed: of random ones, also of a head that `init_from` has not.
  """
  loaded = {} if init_from is None else model_source.load_params(
      init_from, setup.model.config, setup.params, setup.replicated)
  missing = setup.params.keys() - loaded.keys()
  # One stream whatever the mesh: the numbers do not depend on where they go.
  make = lambda key: {
      name: tree for name, tree in setup.model.init(key).items()
      if name in missing}
  where = {name: shardings_of(setup.params[name]) for name in missing}
  return loaded | jax.jit(make, out_shardings=where)(jax.random.key(seed))


def total_steps(config, rows: int, batch: int) -> int:
  """The steps of a stage that goes through its data, or those of its epochs.

  Raises:
    ConfigError: neither are given.
  """
  if config.steps is not None:
    return config.steps
  if config.get('epochs') is None:
    raise errors.expected('steps', 'a number, or config.epochs', None)
  return math.ceil(config.epochs * max(rows // batch, 1))


def optimizer(config, updates: int, section=None) -> optim.Optimizer:
  """That of `config.optim`, or another section, for so many updates."""
  fields = dict(config.optim if section is None else section)
  fields.pop('max_skipped_steps', None)
  return optim.make_optimizer(kind=fields.pop('schedule'), steps=updates, **fields)


def abstract_state(setup: PlacedModel, tx: optim.Optimizer, ref: bool) -> TrainState:
  """The shapes and places of a TrainState, with a reference policy or not."""
  scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=setup.replicated)
  opt_state = sharding.abstract_arrays(
      jax.eval_shape(tx.tx.init, setup.trained),
      optim.state_shardings(tx.tx, setup.trained, shardings_of(setup.trained),
                            setup.replicated))
  return TrainState(scalar, setup.trained, opt_state,
                    setup.params if ref or setup.lora else None, scalar)


def empty_state(mesh: jax.sharding.Mesh
            ) -> tuple[Callable[[], TrainState], TrainState]:
  """The state of a stage that trains nothing: how it begins, its shapes."""
  scalar = jax.ShapeDtypeStruct((), jnp.int32,
                                sharding=sharding.replicated(mesh))
  zero = lambda: jax.device_put(np.int32(0), scalar.sharding)
  return (lambda: TrainState(zero(), {}, {}, None, zero()),
          TrainState(scalar, {}, {}, None, scalar))


def init_state(setup: PlacedModel, tx: optim.Optimizer, abstract: TrainState,
               params: Params, seed: int = 0) -> TrainState:
  """The state at step 0; a reference policy begins as a copy of the policy.

  `params` become part of it and may not be used any more. With LoRA they are
  the reference, and `seed` is that of the factors.
  """
  def make_state(trained):
    zero = jnp.zeros((), jnp.int32)
    ref = None if setup.lora or abstract.ref is None else jax.tree.map(
        jnp.copy, trained)
    return TrainState(zero, trained, tx.tx.init(trained), ref, zero)

  fill = lambda trained, ref: jax.jit(
      make_state, donate_argnums=0,
      out_shardings=shardings_of(abstract._replace(ref=ref)))(trained)
  if setup.lora is None:
    return fill(params, abstract.ref)
  factors = jax.jit(
      functools.partial(lora.init, setup.model.config, setup.lora),
      out_shardings=shardings_of(setup.trained))(params, jax.random.key(seed))
  return fill(factors, None)._replace(ref=params)
