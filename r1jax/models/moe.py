"""A mixture of experts: DeepSeek-V3's MLP (arXiv 2412.19437, sec. 2.1.2).

Each token goes to the few experts whose scores are best, and gets the sum of
what they make of it, weighted by the scores; the shared experts, one MLP, see
every token. No token is dropped and no expert has a capacity.

An expert that gets more tokens than others is chosen less from then on: its
`router_bias`, which only the choice sees, goes down. No loss does that, so no
gradient is spoiled (auxiliary-loss-free balancing, arXiv 2408.15664). What it
takes, the number of tokens each expert got, travels as the gradient of
`router_bias`: micro-batches, devices and layers then add it up as they do every
gradient, and training/optim.py makes the step.

On a mesh each device holds some experts, or a slice of every expert, and the
tokens of its part of the batch. It computes its experts' share of the sum for
its tokens; one sum over devices completes it.

N = B * T tokens, E experts, K of them a token's own, A = N * K assignments.
"""

import functools
import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax.kernels import grouped_matmul
from r1jax.models import architecture
from r1jax.models import layers
from r1jax.parallel import sharding
from r1jax.types import Array


class Experts(NamedTuple):
  """Their weights, in the dtype of computation."""
  gate: Array  # [E, D, F]
  up: Array  # [E, D, F]
  down: Array  # [E, F, D]


class Split(NamedTuple):
  """Mesh axes over which something is split; none outside of a mesh."""
  tokens: tuple[str, ...] = ()
  experts: tuple[str, ...] = ()
  mlp: tuple[str, ...] = ()


def route(config: architecture.Experts, score_NE: Array, bias_E: Array
          ) -> tuple[Array, Array]:
  """Each token's experts and their weights, i32[N, K] and f32[N, K].

  The bias counts for the choice, not for the weights. With groups, a token
  chooses among the experts of its best groups, by the sum of a group's two best
  scores.
  """
  biased_NE = jax.lax.stop_gradient(score_NE) + bias_E
  if config.groups > 1:
    group_NGe = biased_NE.reshape(len(score_NE), config.groups, -1)
    best, _ = jax.lax.top_k(group_NGe, min(2, group_NGe.shape[-1]))
    _, active = jax.lax.top_k(jnp.sum(best, -1), config.active_groups)
    is_active_NG = jnp.any(_one_hot(active, config.groups), axis=1)
    biased_NE = jnp.where(
        is_active_NG[..., None], group_NGe, -jnp.inf).reshape(score_NE.shape)
  _, chosen_NK = jax.lax.top_k(biased_NE, config.active)
  # Not an index: its gradient would be a scatter.
  is_chosen_NKE = _one_hot(chosen_NK, config.experts)
  weight_NK = jnp.sum(is_chosen_NKE * score_NE[:, None], -1)
  if config.normalize:
    weight_NK /= jnp.sum(weight_NK, -1, keepdims=True) + 1e-20
  return chosen_NK, weight_NK * config.scale


def _one_hot(index: Array, size: int) -> Array:
  return index[..., None] == jnp.arange(size)


@jax.custom_vjp
def counted(y_ND: Array, bias_E: Array, chosen_NK: Array) -> Array:
  """y; the gradient of `bias_E` is how many tokens chose each expert.

  Only tokens that y's gradient reaches are counted, whatever its size: what no
  loss sees, such as padding behind a response, is nobody's load.
  """
  del bias_E, chosen_NK
  return y_ND


def _count(kept, dy_ND):
  chosen_NK, bias_E = kept
  seen_N = jnp.any(dy_ND != 0, -1)
  is_load_NKE = _one_hot(chosen_NK, bias_E.size) & seen_N[:, None, None]
  load_E = jnp.sum(is_load_NKE, (0, 1))
  return dy_ND, load_E.astype(bias_E.dtype), None


counted.defvjp(lambda y, bias, chosen: (y, (chosen, bias)), _count)


def mix(config: architecture.Config, experts: Experts, first: Array,
        x_ND: Array, chosen_NK: Array, weight_NK: Array) -> Array:
  """[N, D]: the weighted sum of what a token's experts make of it.

  `experts` are those from `first` on; the others add nothing.
  """
  count, k = len(experts.gate), config.moe.active
  chosen_A = chosen_NK.reshape(-1) - first
  mine_A = (chosen_A >= 0) & (chosen_A < count)
  tiles = grouped_matmul.arrange(
      jnp.where(mine_A, chosen_A, count), count,
      grouped_matmul.tile_rows(chosen_A.size, config.moe.experts))
  x_MCD = grouped_matmul.spread(x_ND, tiles, k)
  weight_MC = grouped_matmul.spread(weight_NK.reshape(-1), tiles, 1)
  # Weights enter before the last product: the backward pass then needs the
  # product's operands only, not its result.
  weighted = jax.checkpoint(lambda gate, up, weight: (
      layers.activate(config, gate) * up * weight[..., None]
      ).astype(gate.dtype))
  gated_MCF = weighted(
      grouped_matmul.product(x_MCD, experts.gate, tiles),
      grouped_matmul.product(x_MCD, experts.up, tiles), weight_MC)
  return grouped_matmul.combine(
      grouped_matmul.product(gated_MCF, experts.down, tiles), tiles, k)


def routed(config: architecture.Config, split: Split, x_BTD: Array, router_DE: Array,
           bias_E: Array, experts: Experts) -> Array:
  """What all tokens' own experts make of them.

  On a mesh, `x_BTD` and `experts` are what one device has of them. `pcast` says
  there what differs between devices, and so where gradients are to be summed.
  """
  def vary(axes, tree):
    return jax.tree.map(lambda x: jax.lax.pcast(x, axes, to='varying'), tree)

  x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
  score_NE = nn.sigmoid(jnp.matmul(
      x_ND.astype(jnp.float32), router_DE.astype(jnp.float32),
      precision=jax.lax.Precision.HIGHEST))
  bias_E, experts = vary(split.tokens, (bias_E, experts))
  chosen_NK, weight_NK = route(config.moe, score_NE, bias_E)
  first = jax.lax.axis_index(split.experts) * len(experts.gate)
  parts = split.experts + split.mlp
  part_ND = mix(config, experts, first,
                *vary(parts, (x_ND, chosen_NK, weight_NK)))
  y_ND = jax.lax.psum(part_ND, parts)
  return counted(y_ND, bias_E, chosen_NK).reshape(x_BTD.shape)


def routed_on_mesh(config: architecture.Config, place: sharding.Placement,
                   x_BTD: Array, router_DE: Array, bias_E: Array,
                   experts: Experts) -> Array:
  """`routed` on every device, with the weights' other splits gathered."""
  batch, length, expert, mlp = place.partition_spec(
      ('batch', 'length', 'expert', 'mlp'))
  # A few prompts, sampled from, need not divide: every device has them all.
  shards = math.prod(place.mesh.shape[axis] for axis in _names(batch))
  batch = None if x_BTD.shape[0] % shards else batch
  tokens, whole = PartitionSpec(batch, length), PartitionSpec()
  wide = PartitionSpec(expert, None, mlp)
  split = Split(_names(batch) + _names(length), _names(expert), _names(mlp))
  return jax.shard_map(
      functools.partial(routed, config, split), mesh=place.mesh,
      in_specs=(tokens, whole, whole,
                Experts(wide, wide, PartitionSpec(expert, mlp, None))),
      out_specs=tokens)(x_BTD, router_DE, bias_E, experts)


def _names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
  """Of the mesh axes in an entry of a PartitionSpec."""
  return (entry,) if isinstance(entry, str) else tuple(entry or ())


class MoE(nn.Module):
  """The experts a token chose, and those it shares with all."""
  config: architecture.Config
  place: sharding.Placement | None

  @nn.compact
  def __call__(self, x_BTD):
    c, moe = self.config, self.config.moe
    # Both are computed with in float32; a bfloat16 bias would lose its steps.
    router = self.param(
        'router', nn.with_logical_partitioning(
            layers.linear(c.width), ('embed', 'router')),
        (c.width, moe.experts), jnp.dtype(c.param_dtype))
    bias = self.param(
        'router_bias', nn.with_logical_partitioning(
            nn.initializers.zeros, ('router',)), (moe.experts,), jnp.float32)
    wide = moe.experts, c.width, moe.mlp
    gate, up = (layers.param(self, name, ('expert', 'embed', 'mlp'), wide,
                             layers.linear(c.width)) for name in ('gate', 'up'))
    down = layers.param(
        self, 'down', ('expert', 'mlp', 'embed'), (wide[0], wide[2], wide[1]),
        layers.linear(moe.mlp, (2 * c.layers) ** -0.5))
    weights = router, bias, Experts(gate, up, down)
    if self.place is None or self.place.mesh.size == 1:
      y_BTD = routed(c, Split(), x_BTD, *weights)
    else:
      y_BTD = routed_on_mesh(c, self.place, x_BTD, *weights)
    if moe.shared:
      y_BTD += layers.MLP(c, moe.shared * moe.mlp, name='shared')(x_BTD)
    return y_BTD
