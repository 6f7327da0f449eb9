"""Models as functions: `build(config)` gives all that the rest may use.

Outside this package nobody sees a Flax module. Policy, old policy, reference,
reward model and critic are one `Model` under different parameters.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.models import architecture
from r1jax.models import layers
from r1jax.models import lora
from r1jax.models import transformer
from r1jax.parallel import sharding
from r1jax.types import Array, Cache, Params


class Model(NamedTuple):
  """Pure functions of parameters; hashable, so a static argument of jit."""
  config: architecture.Config
  init: Callable[[Array], Params]
  axes: Callable[[], Any]  # tree like the parameters of logical axis names
  forward: Callable[..., tuple[Array, tuple[Array, Array]]]
  groups: Callable[..., tuple[Array, Array]]
  unembed: Callable[[Params, Array], Array]
  score: Callable[[Params, Array], Array]
  prepare: Callable[[Params], Params]


@functools.cache
def build(config: architecture.Config,
          place: sharding.Placement | None = None) -> Model:
  """The functions of one model shape; the same ones whenever it is asked.

  Args:
    config: the shape.
    place: the mesh that activations live on, if any.

  Returns:
    A `Model`, where
      init(key) -> params, a tree of `config.param_dtype` arrays, layers
        stacked along their first axis
      params, below, may have a further entry 'lora' (models/lora.py)
      forward(params, tokens_BT, segment_BT, position_BT, cache=None,
        parent_BT=None) -> hidden_BTD, (k [L,B,K,h,T], v [L,B,K,T,h]): causal
        within each segment (None: one document a row) and its parent, an
        earlier segment that several may share, and after everything in
        `cache`. With a cache, which excludes segments, k and v are its past
        with the new tokens written behind it; else those of the new tokens
        alone. A model that does not scan its layers gives tuples of L
      groups(params, prompts, tokens_NT) -> hidden_BPD, hidden_NTD: prompts,
        and tokens that begin the N / B responses to each, in one pass
      unembed(params, hidden_BTD) -> logits_BTV, float32
      score(params, hidden_BTD) -> score_BT, float32: in place of unembed, of a
        model whose config is `scalar` (models/heads.py)
      prepare(params) -> params in the form in which many forward passes are
        fastest: LoRA's factors merged, cast to the dtype of computation, and
        nothing copied in a pass; for forward and unembed only
  """
  module = transformer.Decoder(config, place)

  def variables(key):
    one = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, one, None, one, None, None)['params']

  def init(key):
    return nn.meta.unbox(variables(key))

  def axes():
    boxed = jax.eval_shape(variables, jax.random.key(0))
    return jax.tree.map(
        lambda x: tuple(x.names), boxed,
        is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))

  def forward(params, tokens_BT, segment_BT, position_BT,
              cache: Cache | None = None, parent_BT=None):
    *arrays, parent_BT = jax.tree.map(
        jnp.asarray, (tokens_BT, segment_BT, position_BT, parent_BT))
    return module.apply(_collections(params), *arrays, cache, parent_BT)

  def method(of):
    return lambda params, *args: module.apply(
        _collections(params), *args, method=of)

  groups, unembed, score = map(method, (
      transformer.Decoder.groups, transformer.Decoder.unembed,
      transformer.Decoder.score))
  prepare = functools.partial(_prepare, config)
  return Model(config, init, axes, forward, groups, unembed, score, prepare)


def _collections(params: Params) -> dict[str, Params]:
  """Flax's variables: the weights, and LoRA's factors if there are any."""
  weights = {name: tree for name, tree in params.items() if name != 'lora'}
  factors = {'lora': params['lora']} if 'lora' in params else {}
  return {'params': weights} | factors


def _prepare(config: architecture.Config, params: Params) -> Params:
  def cast(path, leaf):
    # What layers.param does at each use, to the same leaves.
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return leaf if name in layers.FLOAT32 else leaf.astype(config.dtype)

  params = jax.tree_util.tree_map_with_path(
      cast, lora.merge(params, config.lora_scale))
  if config.scan_layers:
    return params
  return params | {name: {'layers': transformer.unstack(params[name])}
                   for name in transformer.STACKS if name in params}
