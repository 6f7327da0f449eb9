"""LoRA (Hu et al., arXiv 2106.09685): low-rank updates of frozen weights.

A weight W becomes W + alpha / rank * A B with A [inputs, rank] and B [rank,
outputs]. The trained parameters are a tree {'lora': factors}, together with the
scalar head of a reward model or critic. Joined with the frozen base they are
parameters for every function of `models.Model`. B is initialised with zeros, so
that training starts from the base, which remains the reference.
"""

from collections.abc import Callable, Iterator, Mapping
import fnmatch
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import hf_layout
from r1jax.types import Array, Params


class Settings(NamedTuple):
  """Rank, scale and targets of the factors; hashable."""
  rank: int
  alpha: float
  targets: tuple[str, ...]  # patterns: 'attention/*', 'mlp/down', '*'

  @property
  def scale(self) -> float:
    """The factor of A B."""
    return self.alpha / self.rank


def settings(fields: Mapping[str, Any] | None) -> Settings | None:
  """The settings in the section `lora` of a config; None if its rank is 0."""
  if not fields or not fields['rank']:
    return None
  return Settings(fields['rank'], fields['alpha'], tuple(fields['targets']))


def axes(config: architecture.Config, settings: Settings, params: Params,
         axes_tree: Any) -> Any:
  """The logical axes of what is trained; `axes_tree` has those of `params`."""
  def of_target(inputs, leaf, names):
    del leaf
    stack, *names = names
    return {'a': (stack, *names[:inputs], 'rank'),
            'b': (stack, 'rank', *names[inputs:])}
  return (_map_targets(of_target, config, settings, params, axes_tree)
          | _head(axes_tree))


def init(config: architecture.Config, settings: Settings, params: Params,
         key: Array) -> Params:
  """Random A and zero B, float32; and the scalar head of `params`, if any."""
  keys = iter(jax.random.split(key, len(jax.tree.leaves(params))))

  def of_target(inputs, leaf):
    layers, *size = leaf.shape
    a = layers, *size[:inputs], settings.rank
    b = layers, settings.rank, *size[inputs:]
    fan_in = math.prod(size[:inputs])
    return {'a': fan_in ** -0.5 * jax.random.normal(next(keys), a),
            'b': jnp.zeros(b)}

  return _map_targets(of_target, config, settings, params) | _head(params)


def _head(tree: Any) -> dict[str, Any]:
  return {'head': tree['head']} if 'head' in tree else {}


def join(base: Params | None, trained: Params) -> Params:
  """All parameters: `trained`, with the base if these are LoRA's factors."""
  return base | trained if 'lora' in trained else trained


def merge(params: Params, scale: float) -> Params:
  """Parameters with LoRA's factors added to the weights."""
  base = {name: tree for name, tree in params.items() if name != 'lora'}

  def add(tree, factors):
    if set(factors) == {'a', 'b'} and not isinstance(factors['a'], dict):
      a, b = (factors[x].astype(jnp.float32) for x in 'ab')
      added = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1))(a, b)
      return (tree + scale * added).astype(tree.dtype)
    return tree | {name: add(tree[name], part)
                   for name, part in factors.items()}

  return add(base, params.get('lora', {}))


def _targets(config: architecture.Config, settings: Settings
             ) -> Iterator[tuple[str, int]]:
  """Paths of the target weights, and the number of their input axes."""
  products = {
      path: leaf.inputs for path, leaf in hf_layout.leaves(config).items()
      if leaf.inputs and leaf.stacked == 1 and not path.endswith('router')}
  for pattern in settings.targets:
    if not fnmatch.filter(products, f'*/{pattern}'):
      known = sorted({path.partition('/')[2] for path in products})
      raise errors.ConfigError(
          'lora.targets', f'no projection is named {pattern!r}'
          + errors.nearest(pattern, known))
  for path, inputs in products.items():
    if any(fnmatch.fnmatch(path, f'*/{x}') for x in settings.targets):
      yield path, inputs


def _map_targets(function: Callable[..., Any], config: architecture.Config,
                 settings: Settings, *trees: Any) -> dict[str, Any]:
  """{'lora': the tree of function(input axes, *leaves) at every target}."""
  factors = {}
  for path, inputs in _targets(config, settings):
    *parents, last = path.split('/')
    subtrees, parent = trees, factors
    for name in parents:
      subtrees = [tree[name] for tree in subtrees]
      parent = parent.setdefault(name, {})
    parent[last] = function(inputs, *(tree[last] for tree in subtrees))
  return {'lora': factors}
