"""Models as functions: `build(config)` gives all that the rest may use.

Outside this package nobody sees a Flax module. Policy, old policy, reference,
reward model and critic are one `Model` under different parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.models import shape
from r1jax.models import transformer
from r1jax.types import Array, Cache, Params


class Model(NamedTuple):
  """Pure functions of parameters; hashable, so a static argument of jit."""
  config: shape.Config
  init: Callable[[Array], Params]
  axes: Callable[[], Any]  # tree like the parameters of logical axis names
  forward: Callable[..., tuple[Array, tuple[Array, Array]]]
  groups: Callable[..., tuple[Array, Array]]
  unembed: Callable[[Params, Array], Array]
  unstack: Callable[[Params], Params]


def _unconstrained(x, axes):
  del axes
  return x


def build(config: shape.Config,
          constrain: Callable = _unconstrained) -> Model:
  """The functions of one model shape.

  Args:
    config: the shape.
    constrain: (array, logical axes) -> array, places activations on a mesh.

  Returns:
    A `Model`, where
      init(key) -> params, a tree of `config.param_dtype` arrays, layers
        stacked along their first axis
      forward(params, tokens_BT, segment_BT, position_BT, cache=None)
        -> hidden_BTD, (k [L,B,K,h,T], v [L,B,K,T,h]): causal within each
        segment (None: one document a row), and after everything in `cache`.
        With a cache, which excludes segments, k and v are its past with the
        new tokens written behind it; else those of the new tokens alone. A
        model that does not scan its layers gives tuples of L
      groups(params, prompts, tokens_NT) -> hidden_BPD, hidden_NTD: prompts,
        and tokens that begin the N / B responses to each, in one pass
      unembed(params, hidden_BTD) -> logits_BTV, float32
      unstack(params) -> params in the form in which a loop of many forward
        passes copies nothing of them; for forward and unembed only
  """
  module = transformer.Decoder(config, constrain)

  def variables(key):
    one = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, one, None, one, None)['params']

  def init(key):
    return nn.meta.unbox(variables(key))

  def axes():
    boxed = jax.eval_shape(variables, jax.random.key(0))
    return jax.tree.map(
        lambda x: tuple(x.names), boxed,
        is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))

  def forward(params, tokens_BT, segment_BT, position_BT,
              cache: Cache | None = None):
    arrays = jax.tree.map(jnp.asarray, (tokens_BT, segment_BT, position_BT))
    return module.apply({'params': params}, *arrays, cache)

  def groups(params, prompts, tokens_NT):
    return module.apply({'params': params}, prompts, tokens_NT,
                        method=transformer.Decoder.groups)

  def unembed(params, hidden_BTD):
    return module.apply({'params': params}, hidden_BTD,
                        method=transformer.Decoder.unembed)

  def unstack(params):
    if config.scan_layers:
      return params
    blocks = transformer.unstack(params['blocks'])
    return params | {'blocks': {'layers': blocks}}

  return Model(config, init, axes, forward, groups, unembed, unstack)
