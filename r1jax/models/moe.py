"""Mixture of experts: DeepSeek-V3's MLP (arXiv 2412.19437, sec. 2.1.2).

Each token is routed to the few experts with the best scores, and gets the sum
of their outputs, weighted by the scores; the shared experts, one MLP, process
every token. No token is dropped and no expert has a capacity.

The load is balanced without a loss (arXiv 2408.15664): the `router_bias` of an
expert that gets more tokens than others is lowered, so that it is chosen less
often; the bias affects the choice alone. The load, the number of tokens of each
expert, is returned as the gradient of `router_bias`: it is then summed over
micro-batches and devices like any gradient, and training/optim.py takes the
step.

On a mesh each device holds some experts, or a slice of every expert, and its
part of the tokens. Over mesh axes that split both tokens and experts, tokens
travel to the devices of their experts and back (kernels/exchange.py). Over
those that split experts or their width alone, each device computes the
contribution of what it holds, and one sum over devices completes the output.

N = B * T tokens, E experts, K of them per token, A = N * K assignments.
"""

import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax import config as config_lib
from r1jax.kernels import exchange
from r1jax.kernels import grouped_matmul
from r1jax.models import architecture
from r1jax.models import layers
from r1jax.parallel import sharding
from r1jax.types import Array


class ExpertWeights(NamedTuple):
  """The weights of experts, in the dtype of computation."""
  gate: Array  # [E, D, F]
  up: Array  # [E, D, F]
  down: Array  # [E, F, D]


class Split(NamedTuple):
  """Mesh axes that tokens and weights of experts are split over, if any."""
  tokens: tuple[str, ...] = ()
  experts: tuple[str, ...] = ()
  embed: tuple[str, ...] = ()
  mlp: tuple[str, ...] = ()

  @property
  def travel(self) -> tuple[str, ...]:
    """Over which tokens go to their experts."""
    return tuple(axis for axis in self.experts if axis in self.tokens)

  @property
  def copies(self) -> tuple[str, ...]:
    """Over which tokens are split and weights are not."""
    return tuple(axis for axis in self.tokens
                 if axis not in self.experts + self.embed + self.mlp)

  @property
  def sum(self) -> tuple[str, ...]:
    """Over which each device has a part of each of its tokens' outputs."""
    return tuple(axis for axis in self.experts + self.mlp
                 if axis not in self.tokens)


def choose(config: architecture.Experts, score_NE: Array, bias_E: Array
           ) -> Array:
  """Each token's experts, i32[N, K]: those of the best biased scores.

  With groups, a token chooses among the experts of its best groups, ranked by
  the sum of a group's two best scores, biased. Those of other groups are at
  -inf, as in DeepSeek's own code
  (deepseek-ai/DeepSeek-V3, inference/model.py) and in transformers 5.24; its
  earlier versions put 0 in their place, which comes before a chosen group's
  expert whose bias makes its score negative.
  """
  biased_NE = jax.lax.stop_gradient(score_NE) + bias_E
  if config.groups > 1:
    group_NGe = biased_NE.reshape(len(score_NE), config.groups, -1)
    best, _ = jax.lax.top_k(group_NGe, min(2, group_NGe.shape[-1]))
    _, active = jax.lax.top_k(jnp.sum(best, -1), config.active_groups)
    is_active_NG = jnp.any(_one_hot(active, config.groups), axis=1)
    biased_NE = jnp.where(
        is_active_NG[..., None], group_NGe, -jnp.inf).reshape(score_NE.shape)
  return jax.lax.top_k(biased_NE, config.active)[1]


def weigh(config: architecture.Experts, score_NE: Array, chosen_NK: Array
          ) -> Array:
  """The weights f32[N, K] of each token's experts: their scores, unbiased."""
  # Not by indexing, whose gradient would be a scatter.
  is_chosen_NKE = _one_hot(chosen_NK, config.experts)
  weight_NK = jnp.sum(is_chosen_NKE * score_NE[:, None], -1)
  if config.normalize:
    weight_NK /= jnp.sum(weight_NK, -1, keepdims=True) + 1e-20
  return weight_NK * config.scale


def _one_hot(index: Array, size: int) -> Array:
  return index[..., None] == jnp.arange(size)


@jax.custom_vjp
def attach_load(y_ND: Array, bias_E: Array, chosen_NK: Array) -> Array:
  """y, with each expert's load as the gradient of `bias_E`.

  The load is the number of tokens that chose the expert. Only tokens with a
  nonzero gradient of y are counted; tokens that no loss depends on, such as
  padding after a response, are not. A prompt counts in every row of a pass that
  has it.
  """
  del bias_E, chosen_NK
  return y_ND


def _attach_load_bwd(residuals: tuple, dy_ND: Array):
  chosen_NK, bias_E = residuals
  has_gradient_N = jnp.any(dy_ND != 0, -1)
  is_load_NKE = _one_hot(chosen_NK, bias_E.size) & has_gradient_N[:, None, None]
  load_E = jnp.sum(is_load_NKE, (0, 1))
  return dy_ND, load_E.astype(bias_E.dtype), None


attach_load.defvjp(
    lambda y, bias, chosen: (y, (chosen, bias)), _attach_load_bwd)


def mix(config: architecture.Config, split: Split, experts: ExpertWeights,
        x_ND: Array, weight_NK: Array, chosen_NK: Array,
        rows: int | None = None) -> Array:
  """The weighted sum of the outputs of each token's experts, [N, D].

  Those of other devices than this one contribute nothing. `rows` is how many
  assignments are expected to be other than none; unset: all.
  """
  count, k = len(experts.gate), chosen_NK.shape[1]
  chosen_A = chosen_NK.reshape(-1) - jax.lax.axis_index(split.experts) * count
  is_here_A = (chosen_A >= 0) & (chosen_A < count)
  tiles = grouped_matmul.arrange(
      jnp.where(is_here_A, chosen_A, count), count,
      grouped_matmul.tile_rows(
          min(rows or chosen_A.size, chosen_A.size),
          config.moe.experts // jax.lax.axis_size(split.travel)))
  x_MCD = grouped_matmul.spread(x_ND, tiles, k)
  weight_MC = grouped_matmul.spread(weight_NK.reshape(-1), tiles, 1)
  # Weighted before the last product, so that the backward pass needs that
  # product's operands only, not its result.
  weighted = jax.checkpoint(lambda gate, up, weight: (
      layers.activate(config, gate) * up * weight[..., None]
      ).astype(gate.dtype))
  gated_MCF = weighted(
      grouped_matmul.product(x_MCD, experts.gate, tiles),
      grouped_matmul.product(x_MCD, experts.up, tiles), weight_MC)
  return grouped_matmul.combine(
      grouped_matmul.product(gated_MCF, experts.down, tiles), tiles, k)


def mix_visitors(config: architecture.Config, split: Split,
                 experts: ExpertWeights, x_ND: Array, weight_NK: Array,
                 chosen_NK: Array, distinct: bool) -> Array:
  """`mix`, of the experts of all devices along `split.travel`.

  `distinct`: those of a token are different ones, as the router's are.
  """
  count = len(experts.gate)
  sizes = [jax.lax.axis_size(axis) for axis in split.experts]
  place = dict(zip(split.experts, jnp.unravel_index(chosen_NK // count, sizes)))
  to_NK = jnp.ravel_multi_index(
      [place[axis] for axis in split.travel],
      [jax.lax.axis_size(axis) for axis in split.travel], mode='clip')

  def compute(experts, x_RD, weight_R, chosen_R):
    return mix(config, split, experts, x_RD, weight_R[:, None],
               chosen_R[:, None], chosen_NK.size)

  most = chosen_NK.shape[1]
  if distinct:
    most = min(
        most, config.moe.experts // jax.lax.axis_size(split.travel))
  return exchange.visit(
      compute, exchange.Axes(split.travel, split.tokens + split.sum), experts,
      x_ND, weight_NK, chosen_NK, to_NK, most)


def apply_experts(config: architecture.Config, split: Split, x_BTD: Array,
                  replayed_BTK: Array | None, router_DE: Array, bias_E: Array,
                  experts: ExpertWeights) -> tuple[Array, Array]:
  """The output of the routed experts, [B, T, D], and `MoE`'s choice.

  On a mesh, `x_BTD` and `experts` are one device's parts of them. There `pcast`
  marks the arrays that differ between devices, whose gradients are summed.
  """
  def vary(axes, tree):
    return jax.tree.map(lambda x: jax.lax.pcast(x, axes, to='varying'), tree)

  x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
  score_NE = nn.sigmoid(jnp.matmul(
      x_ND.astype(jnp.float32), router_DE.astype(jnp.float32),
      precision=jax.lax.Precision.HIGHEST))
  bias_E = vary(split.tokens, bias_E)
  own_NK = chosen_NK = choose(config.moe, score_NE, bias_E)
  if replayed_BTK is not None:
    chosen_NK = replayed_BTK.reshape(own_NK.shape).astype(jnp.int32)
  weight_NK = weigh(config.moe, score_NE, chosen_NK)
  experts = whole(split, vary(split.copies, experts))
  mixed = functools.partial(
      mix_visitors, distinct=replayed_BTK is None) if split.travel else mix
  part_ND = mixed(
      config, split, experts, *vary(split.sum, (x_ND, weight_NK, chosen_NK)))
  y_ND = jax.lax.psum(part_ND, split.sum)
  y_ND = attach_load(y_ND, bias_E, chosen_NK)
  dtype = jnp.uint8 if config.moe.experts <= 256 else jnp.uint16
  return y_ND.reshape(x_BTD.shape), own_NK.astype(dtype).reshape(
      *x_BTD.shape[:2], -1)


def whole(split: Split, experts: ExpertWeights) -> ExpertWeights:
  """Experts with their whole width, gathered over the devices of its parts.

  Where these have different tokens, gradients are scattered as they are summed.
  """
  def gather(x, width, mlp):
    for axis in reversed(split.embed):
      x = jax.lax.all_gather(
          x, axis, axis=width, tiled=True,
          to='varying' if axis in split.tokens else 'invarying')
    for axis in reversed(split.mlp):
      if axis in split.tokens:
        x = jax.lax.all_gather(x, axis, axis=mlp, tiled=True)
    return x

  return ExpertWeights(
      gather(experts.gate, 1, 2), gather(experts.up, 1, 2),
      gather(experts.down, 2, 1))


def apply_experts_on_mesh(
    config: architecture.Config, place: sharding.Placement, x_BTD: Array,
    replayed_BTK: Array | None, *weights: Any) -> tuple[Array, Array]:
  """`apply_experts` on every device."""
  names, spec = config_lib.axis_names, place.partition_spec
  batch, length = map(names, spec(('batch', 'length')))
  # A single row, or token of each, does not divide: devices have the same then.
  while x_BTD.shape[0] % place.size(batch):
    batch = batch[:-1]
  while x_BTD.shape[1] % place.size(length):
    length = length[:-1]
  tokens, same = PartitionSpec(batch, length), PartitionSpec()
  wide = spec(('expert', 'expert_embed', 'mlp'))
  split = Split(batch + length, *map(names, wide))
  return jax.shard_map(
      functools.partial(apply_experts, config, split), mesh=place.mesh,
      in_specs=(tokens, tokens, same, same, ExpertWeights(
          wide, wide, spec(('expert', 'mlp', 'expert_embed')))),
      out_specs=(tokens, tokens))(x_BTD, replayed_BTK, *weights)


class MoE(nn.Module):
  """The MLP of a mixture of experts: routed experts and shared ones.

  Returns the output, and the experts [B, T, K] that the router chooses. It is
  the given ones that are used, if any: those that were chosen when the tokens
  were sampled (routing replay, arXiv 2510.11370). Scores weigh them still.
  """
  config: architecture.Config
  place: sharding.Placement | None

  @nn.compact
  def __call__(self, x_BTD: Array, replayed_BTK: Array | None = None
               ) -> tuple[Array, Array]:
    c, moe = self.config, self.config.moe
    # Both are used in float32. A bfloat16 bias would round its steps away.
    router = self.param(
        'router', nn.with_logical_partitioning(
            layers.linear(c.width), ('embed', 'router')),
        (c.width, moe.experts), jnp.dtype(c.param_dtype))
    bias = self.param(
        'router_bias', nn.with_logical_partitioning(
            nn.initializers.zeros, ('router',)), (moe.experts,), jnp.float32)
    wide = moe.experts, c.width, moe.mlp
    weight = functools.partial(layers.param, self, whole=False)
    gate, up = (weight(name, ('expert', 'expert_embed', 'mlp'), wide,
                       layers.linear(c.width)) for name in ('gate', 'up'))
    down = weight('down', ('expert', 'mlp', 'expert_embed'), (
        wide[0], wide[2], wide[1]), layers.linear(
            moe.mlp, (2 * c.layers) ** -0.5))
    weights = router, bias, ExpertWeights(gate, up, down)
    if self.place is None or self.place.mesh.size == 1:
      y_BTD, chosen_BTK = apply_experts(
          c, Split(), x_BTD, replayed_BTK, *weights)
    else:
      y_BTD, chosen_BTK = apply_experts_on_mesh(
          c, self.place, x_BTD, replayed_BTK, *weights)
    if moe.shared:
      y_BTD += layers.MLP(
          c, self.place, moe.shared * moe.mlp, name='shared')(x_BTD)
    return y_BTD, chosen_BTK
