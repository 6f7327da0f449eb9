"""Models as pure functions of their parameters: `build(config)`.

Nothing outside this package sees a Flax module. Policy, reference, reward model
and critic are a `Model` with different parameters.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.models import architecture
from r1jax.models import prepared
from r1jax.models import transformer
from r1jax.parallel import sharding
from r1jax.types import Array, Cache, Params


class Model(NamedTuple):
  """Pure functions of a model's parameters; hashable, so static under jit.

  init(key) -> params, a tree of `config.param_dtype` arrays, layers stacked
    along the first axis; below, 'lora' may be one more entry (lora.py)
  axes() -> the logical axes of each parameter, a tree like params
  forward(params, tokens_BT, segment_BT, position_BT, cache=None,
    parent_BT=None) -> hidden_BTD, (k [L,B,K,h,T], v [L,B,K,T,h]). A token
    attends to itself and to earlier tokens of its segment (None: a row is
    one document), to its parent, which is an earlier segment that several
    may share, and to everything in `cache`. With a cache, which excludes
    segments, k and v are its past with the new tokens appended; without,
    they are those of the new tokens alone. A model that does not scan its
    layers gives tuples of L arrays. With a cache, params are prepared ones
  forward_routed(as forward) -> what forward returns, and the experts that
    were chosen in each layer that has any, u8[B,T,L,K], u16 of more than
    256; None without experts
  forward_groups(params, prompts, tokens_NT, segment_NT=None) -> hidden_BPD,
    hidden_NTD: one pass over prompts and the first T tokens of the N / B
    responses to each; with segments, of N / B rows of several responses
  replay_groups(params, prompts, tokens_NT, experts_NTLK, segment_NT=None) ->
    what forward_groups returns where these experts, and those of prompts, are
    used in place of the router's; and the router's own, of responses
  head(params) -> those of them that unembed reads
  unembed(params, hidden_BTD) -> logits_BTV, float32
  score(params, hidden_BTD) -> score_BT, float32: in place of unembed if
    the config is `scalar` (layers.Score)
  prepare(params) -> params for many calls of forward and unembed: LoRA
    merged, in the dtype of computation, placed by the model's own rules,
    layers unstacked if not scanned, else in a CPU's order (prepared.py)
  """
  config: architecture.Config
  init: Callable[[Array], Params]
  axes: Callable[[], Any]
  forward: Callable[..., tuple[Array, tuple[Array, Array]]]
  forward_routed: Callable[
      ..., tuple[Array, tuple[Array, Array], Array | None]]
  forward_groups: Callable[..., tuple[Array, Array]]
  replay_groups: Callable[..., tuple[Array, Array, Array | None]]
  head: Callable[[Params], Params]
  unembed: Callable[[Params, Array], Array]
  score: Callable[[Params, Array], Array]
  prepare: Callable[[Params], Params]
  place: sharding.Placement | None  # of activations; None: on one device


@functools.cache
def build(config: architecture.Config,
          place: sharding.Placement | None = None) -> Model:
  """The functions of an architecture; equal arguments give the same object.

  Args:
    config: the architecture.
    place: the mesh and rules that place activations, if any.
  """
  module = transformer.Decoder(config, place)

  @functools.partial(jax.jit, inline=True)  # traced once for all its uses
  def variables(key):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return transformer.Decoder(config, None).init(  # one row: no mesh splits it
        key, tokens, None, tokens, None, None)['params']

  def init(key):
    return nn.meta.unbox(variables(key))

  def axes():
    boxed = jax.eval_shape(variables, jax.random.key(0))
    return jax.tree.map(
        lambda x: tuple(x.names), boxed,
        is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))

  def forward_routed(params, tokens_BT, segment_BT, position_BT,
                     cache: Cache | None = None, parent_BT=None):
    *arrays, parent_BT = jax.tree.map(
        jnp.asarray, (tokens_BT, segment_BT, position_BT, parent_BT))
    return module.apply(_collections(params), *arrays, cache, parent_BT)

  def forward(*args, **kwargs):
    return forward_routed(*args, **kwargs)[:2]

  replay_groups, score = (
      lambda params, *args, of=of: module.apply(
          _collections(params), *args, method=of)
      for of in (transformer.Decoder.forward_groups, transformer.Decoder.score))

  def forward_groups(params, prompts, tokens_NT, segment_NT=None):
    return replay_groups(params, prompts, tokens_NT, None, segment_NT)[:2]

  return Model(config, init, axes, forward, forward_routed, forward_groups,
               replay_groups, functools.partial(transformer.head, config),
               functools.partial(transformer.unembed, config, place), score,
               functools.partial(prepared.prepare, config, place, axes), place)


def _collections(params: Params) -> dict[str, Params]:
  """Flax's variable collections: weights, LoRA's factors, prepared weights."""
  others = {name: params[name] for name in ('lora', 'matrices')
            if name in params}
  return others | {'params': {
      name: tree for name, tree in params.items() if name not in others}}
