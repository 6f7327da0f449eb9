"""Parameters made ready for many calls of forward and unembed, as in sampling.

On one CPU, the weight of each product is kept as [outputs, inputs], each
layer's apart. XLA would else write a weight again, in that order, to multiply
few rows by it, and a scan over layers would copy each layer's out of the stack.
"""

from collections.abc import Callable
import math
from typing import Any

import jax

from r1jax.models import architecture
from r1jax.models import hf_layout
from r1jax.models import layers
from r1jax.models import lora
from r1jax.models import transformer
from r1jax.parallel import sharding
from r1jax.types import Array, Params

# Not, or not only, multiplied by `layers.dense`.
_OTHERS = ('router', 'kv_b')


def prepare(config: architecture.Config, place: sharding.Placement | None,
            axes: Callable[[], Any], params: Params) -> Params:
  """`Model.prepare`."""
  def cast(path, leaf):
    # As layers.param does at each use, for the same leaves.
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return leaf if name in layers.FLOAT32 else leaf.astype(config.dtype)

  params = jax.tree_util.tree_map_with_path(
      cast, lora.merge(params, config.lora_scale))
  if place is not None:
    params = place.take(params, axes())
  if config.scan_layers:
    return _with_matrices(config, params) if _on_one_cpu(place) else params
  return params | {name: {'layers': transformer.unstack(params[name])}
                   for name in transformer.STACKS if name in params}


def _on_one_cpu(place: sharding.Placement | None) -> bool:
  return sharding.device(place).platform == 'cpu' and (
      place is None or place.mesh.size == 1)


def _with_matrices(config: architecture.Config, params: Params) -> Params:
  """Weights of products in `matrices`, as tuples of [outputs, inputs]."""
  rest, matrices = jax.tree.map(lambda x: x, params), {}  # dicts of their own
  for path, leaf in hf_layout.leaves(config).items():
    *parents, name = path.split('/')
    if leaf.stacked != 1 or not leaf.inputs or name in _OTHERS:
      continue
    source, target = rest, matrices
    for parent in parents:
      source, target = source[parent], target.setdefault(parent, {})
    weight = source.pop(name)
    target[name] = tuple(
        _transposed(x[0], leaf.inputs)
        for x in jax.lax.split(weight, [1] * len(weight)))
  if not config.scalar:
    matrices['output'] = (
        rest['embedding'] if config.tied else rest.pop('output').T),
  return rest | {'matrices': matrices}


def _transposed(weight: Array, inputs: int) -> Array:
  """[inputs..., outputs...] -> [outputs..., inputs], all inputs in one axis."""
  size, outputs = math.prod(weight.shape[:inputs]), weight.shape[inputs:]
  return weight.reshape(size, -1).T.reshape(*outputs, size)
