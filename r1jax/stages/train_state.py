"""Train states: a model on a mesh, its optimizer, the arrays a step changes.

The one place where the sections model, mesh, rules, lora and optim of a config
turn into functions, shardings and arrays.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax import models
from r1jax.data import vocabs
from r1jax.models import architecture
from r1jax.models import lora
from r1jax.models import transformer
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.stages import model_source
from r1jax.training import moments
from r1jax.training import optim
from r1jax.types import Params, TrainState


class PlacedModel(NamedTuple):
  """A model on a mesh: its functions, and where its parameters live."""
  model: models.Model
  mesh: jax.sharding.Mesh
  params: Params  # shapes with shardings
  trained: Params  # the same, or those of LoRA's factors
  lora: lora.Settings | None
  replicated: jax.sharding.NamedSharding
  batch: jax.sharding.NamedSharding  # first axis over the batch axes
  sampling: models.Model  # the same model, as sampling places it


def place_model(shape: architecture.Config, mesh: jax.sharding.Mesh,
                rules: sharding.Rules, adapter: lora.Settings | None = None,
                longest: tuple[str, int] | None = None,
                sampling_rules: sharding.Rules = ()) -> PlacedModel:
  """Builds a model for a mesh; nothing is computed yet.

  Args:
    shape: its architecture.
    mesh: of all devices.
    rules: (logical axis, mesh axes) pairs.
    adapter: LoRA's settings, if its factors are what is trained.
    longest: (field, tokens), the longest sequence and what sets it, for errors.
    sampling_rules: what sampling has in place of some of `rules`.

  Raises:
    ConfigError: the model does not fit the mesh, or the sequence the model.
  """
  shape.check()
  if longest and longest[1] > shape.max_len:
    raise errors.expected(longest[0], f"at most the model's {shape.max_len} "
                          'tokens', longest[1])
  if adapter:
    shape = dataclasses.replace(shape, lora_scale=adapter.scale)
  rules, sampling = (
      tuple((name, axis) for name, axis in {**dict(rules), **more}.items())
      for more in ({}, dict(sampling_rules)))
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
                     sharding.replicated(mesh), sharding.batch_sharding(mesh),
                     model if sampling == rules else models.build(
                         shape, sharding.Placement(mesh, sampling, rules)))


class StageModel(NamedTuple):
  """The model that a config describes, placed, and what it starts from."""
  placed: PlacedModel
  source: model_source.ModelSource | None  # None: random parameters

  def vocabulary(self, section: Mapping[str, Any]) -> vocabs.Vocab:
    """The vocabulary of `config.vocab`."""
    return model_source.configured_vocabulary(
        section, self.source, self.placed.model.config.vocab)


def configured_model(config, mesh: jax.sharding.Mesh,
                     longest: tuple[str, int] | None = None,
                     needs: str | None = None) -> StageModel:
  """The model of `config`, by its fields init_from, model, rules and lora.

  Args:
    config: of a stage.
    mesh: of all devices.
    longest: as `place_model`.
    needs: what init_from must name, for the error if it is unset.
  """
  if config.init_from is None and needs is not None:
    raise errors.expected('init_from', needs, None)
  source = config.init_from and model_source.find(config.init_from)
  shape = model_source.configured_architecture(config.model, source)
  if mesh.shape['expert'] > 1 and shape.moe is None:
    raise errors.expected('mesh.expert', '1: the model has no experts; batches '
                          'are split over config.mesh.data and fsdp, too',
                          mesh.shape['expert'])
  adapter = lora.settings(config.lora) if 'lora' in config else None
  return StageModel(
      place_model(shape, mesh, config.rules, adapter, longest,
                  config.get('sampling_rules', ())), source)


def shardings_of(tree: Any) -> Any:
  """The shardings of a tree of arrays or shapes."""
  return jax.tree.map(lambda x: x.sharding, tree)


def init_params(placed: PlacedModel, source: model_source.ModelSource | None,
                seed: int) -> Params:
  """Parameters on their mesh.

  Args:
    placed: the model.
    source: of the parameters; None for random ones.
    seed: of random ones, also of a head that the source lacks.
  """
  loaded = {} if source is None else source.load_params(
      placed.model.config, placed.params, placed.replicated)
  missing = placed.params.keys() - loaded.keys()
  # One stream whatever the mesh: the numbers do not depend on where they go.
  make = lambda key: {
      name: tree for name, tree in placed.model.init(key).items()
      if name in missing}
  out_shardings = {name: shardings_of(placed.params[name]) for name in missing}
  return loaded | jax.jit(make, out_shardings=out_shardings)(
      jax.random.key(seed))


def total_steps(config, rows: int, batch: int) -> int:
  """The steps of a stage that iterates over its data.

  Args:
    config: of the stage: its `steps`, or `epochs` where those are unset.
    rows: in the data.
    batch: rows per step.

  Raises:
    ConfigError: neither is set.
  """
  if config.steps is not None:
    return config.steps
  if config.epochs is None:
    raise errors.expected('steps', 'a number, or config.epochs', None)
  return math.ceil(config.epochs * max(rows // batch, 1))


def optimizer(section: Mapping[str, Any], updates: int, params: Params,
              field: str = 'optim') -> optim.Optimizer:
  """The optimizer of a section such as `config.optim`.

  Says so where parameters of less than float32 have no master weights.

  Args:
    section: its fields.
    updates: of the whole stage, which a schedule needs to know.
    params: what is trained, or its shapes.
    field: where the section is, for errors.

  Raises:
    ConfigError: a schedule that does not fit the updates; master weights of
      parameters that need none; moments that bfloat16 cannot hold, or of which
      none can be factored.
  """
  coarse = {str(leaf.dtype) for leaf in jax.tree.leaves(optim.weights(params))
            if leaf.dtype != jnp.float32}
  masters = f'{field}.master_weights'
  if section['master_weights'] and not coarse:
    raise errors.expected(
        masters, 'False: all that is trained is float32 already', True)
  if coarse and updates and not section['master_weights']:
    distributed.say(
        f'config.{masters} is False: parameters are {", ".join(coarse)}, where '
        'an update of less than 1/256 of a parameter may be rounded away')
  if section['second_moment'] == 'factored' and not any(
      moments.is_factored(leaf.shape)
      for leaf in jax.tree.leaves(optim.weights(params))):
    raise errors.expected(
        f'{field}.second_moment', "'float32': no matrix that is trained has "
        f'two sides of {moments.FACTORED_SIZE}', 'factored')
  fields = dict(section)
  fields.pop('max_skipped_steps', None)  # the loop's
  fields['offload'] = transformer.STACKS if fields['offload'] else None
  with errors.section('optim', at=field):
    return optim.make_optimizer(
        kind=fields.pop('schedule'), steps=updates, **fields)


def abstract_state(placed: PlacedModel, optimizer: optim.Optimizer,
                   ref: bool) -> TrainState:
  """The shapes and shardings of a TrainState, with a reference or without."""
  scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=placed.replicated)
  opt_state = sharding.abstract_arrays(
      jax.eval_shape(optimizer.init, placed.trained),
      optim.state_shardings(
          optimizer, placed.trained, shardings_of(placed.trained),
          placed.replicated))
  return TrainState(scalar, placed.trained, opt_state,
                    placed.params if ref or placed.lora else None, scalar)


def state_from_params(placed: PlacedModel, optimizer: optim.Optimizer,
                      abstract: TrainState, params: Params, seed: int = 0
                      ) -> TrainState:
  """The state at step 0; the reference policy starts as a copy of the policy.

  `params` are donated. With LoRA they become the reference, and `seed` draws
  the factors.
  """
  def make_state(trained):
    zero = jnp.zeros((), jnp.int32)
    ref = None if placed.lora or abstract.ref is None else jax.tree.map(
        jnp.copy, trained)
    return TrainState(zero, trained, optimizer.init(trained), ref, zero)

  fill = lambda trained, ref: jax.jit(
      make_state, donate_argnums=0,
      out_shardings=shardings_of(abstract._replace(ref=ref)))(trained)
  if placed.lora is None:
    return fill(params, abstract.ref)
  factors = jax.jit(
      functools.partial(lora.init, placed.model.config, placed.lora),
      out_shardings=shardings_of(placed.trained))(params, jax.random.key(seed))
  return fill(factors, None)._replace(ref=params)


def initial_state(placed: PlacedModel, source: model_source.ModelSource | None,
                  optimizer: optim.Optimizer, abstract: TrainState, seed: int
                  ) -> TrainState:
  """The state at step 0, with a source's parameters or random ones."""
  return state_from_params(
      placed, optimizer, abstract, init_params(placed, source, seed), seed)


def empty_state(mesh: jax.sharding.Mesh
                ) -> tuple[Callable[[], TrainState], TrainState]:
  """`init` and `abstract` of loop.Stage, for a stage that trains nothing."""
  scalar = jax.ShapeDtypeStruct((), jnp.int32,
                                sharding=sharding.replicated(mesh))
  zero = lambda: jax.device_put(np.int32(0), scalar.sharding)
  return (lambda: TrainState(zero(), {}, {}, None, zero()),
          TrainState(scalar, {}, {}, None, scalar))
