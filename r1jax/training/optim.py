"""The optimizer: AdamW with a schedule; what is not finite changes nothing.

optax supplies the parts. `update` is the only way in which parameters change.
It clips by the global norm, and where a gradient, a new parameter or a new
moment is not finite it leaves parameters and optimizer state bitwise as they
were.

Moments are float32 whatever the parameters are, unless the config has them
smaller (moments.py). An update below 1/256 of a bfloat16 parameter may be
rounded away; with master weights the updates are added up in float32, and the
parameters are those sums, rounded. Both may be kept in the memory of the hosts
(offload.py).

A mixture of experts' `router_bias` is not trained by AdamW: its gradient is the
load of each expert (models/moe.py), and its update balances the loads.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from r1jax import errors
from r1jax import types
from r1jax.kernels import masked
from r1jax.training import floats
from r1jax.training import moments
from r1jax.training import offload as offload_lib

Array = types.Array


class MasterState(NamedTuple):
  """The state of an optimizer with master weights."""
  inner: Any  # of AdamW
  weights: Any  # float32, like the parameters


class Optimizer(NamedTuple):
  """What `update` needs beside gradients and state."""
  inner: optax.GradientTransformation  # of float32 parameters
  schedule: Callable[[Array], Array]  # updates made so far -> learning rate
  router_bias_rate: float = 0.  # by which `router_bias` changes
  master_weights: bool = False
  clip_norm: float = 0.  # of all gradients together; 0: none
  # Where the state is offloaded, the parameters that have layers; else None.
  offload: tuple[str, ...] | None = None

  def init(self, params: types.Params) -> Any:
    """The state before the first update."""
    exact = _float32(params)
    state = self.inner.init(exact)
    return (MasterState(state, jax.tree.map(jnp.copy, exact))
            if self.master_weights else state)


def schedule(
    kind: str, lr: float, steps: int, warmup_steps: int, final_fraction: float
) -> Callable[[Array], Array]:
  """The learning rate of each update.

  Args:
    kind: 'constant', or 'cosine' down to lr * final_fraction at `steps`.
    lr: the peak, reached after `warmup_steps` of linear rise from 0.
    steps: all updates, warm-up included.
    warmup_steps: 0 starts at the peak.
    final_fraction: of `lr`, left at the end of a cosine.

  Raises:
    ConfigError: an unknown kind, or a warm-up that leaves no update.
  """
  if steps and warmup_steps >= steps:
    raise errors.expected(
        'optim.warmup_steps', f'fewer than the {steps} updates of the run',
        warmup_steps)
  if kind == 'constant':
    rest = optax.constant_schedule(lr)
  elif kind == 'cosine':
    rest = optax.cosine_decay_schedule(
        lr, max(steps - warmup_steps, 1), final_fraction)
  else:
    raise errors.expected('optim.schedule', "'constant' or 'cosine'", kind)
  if not warmup_steps:
    return rest
  # The first update takes lr / warmup_steps: a rate of 0 would be no update.
  rise = optax.linear_schedule(lr / warmup_steps, lr, max(warmup_steps - 1, 1))
  return optax.join_schedules([rise, rest], [warmup_steps])


def decays(params: types.Params) -> Any:
  """Which parameters weight decay touches: matrices, no norms or biases.

  By name, since stacked layers make matrices of their norm scales.
  """
  def decays_leaf(path, leaf):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return leaf.ndim > 1 and not any(
        word in name for word in ('bias', 'scale', 'norm'))
  return jax.tree_util.tree_map_with_path(decays_leaf, params)


def make_optimizer(
    *,
    lr: float,
    steps: int,
    kind: str = 'constant',
    warmup_steps: int = 0,
    final_fraction: float = 0.1,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
    router_bias_rate: float = 0.001,
    master_weights: bool = False,
    first_moment: str = 'float32',
    second_moment: str = 'float32',
    offload: tuple[str, ...] | None = None,
) -> Optimizer:
  """AdamW (Loshchilov & Hutter, arXiv 1711.05101); `clip_norm` 0: none.

  `router_bias_rate` is gamma of DeepSeek-V3 (arXiv 2412.19437, sec. 4.2: 0.001,
  and 0 for the last 500 of 14.8 T tokens). With `master_weights` the state is a
  `MasterState`. `first_moment` and `second_moment` are those of
  `moments.scale_by_moments`. With `offload`, the names of parameters whose
  arrays have the layers as first axis, the state is in the hosts' memory.
  """
  rate = schedule(kind, lr, steps, warmup_steps, final_fraction)
  inner = optax.chain(
      optax.identity(),  # where the states of optax's clipping are
      moments.scale_by_moments(b1, b2, eps, first_moment, second_moment),
      optax.add_decayed_weights(weight_decay, mask=decays),
      optax.scale_by_learning_rate(rate),
  )
  return Optimizer(inner, rate, router_bias_rate, master_weights, clip_norm,
                   offload)


def _float32(tree: Any) -> Any:
  """`weights(tree)` in float32."""
  return jax.tree.map(lambda x: x.astype(jnp.float32), weights(tree))


def weights(tree: Any) -> Any:
  """A tree like the parameters, with None for every `router_bias`."""
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: None if _is_router_bias(path) else leaf, tree)


def _is_router_bias(path) -> bool:
  return jax.tree_util.keystr(path[-1:], simple=True) == 'router_bias'


def balanced(bias: Array, load: Array, rate: float) -> Array:
  """One step of auxiliary-loss-free balancing (arXiv 2408.15664, alg. 1).

  bias - rate * sign(load - mean load), where the last axis is the experts. The
  loads may be in any unit; a load within 1e-6 of the mean counts as even, since
  a division may have rounded it.
  """
  mean = jnp.mean(load, -1, keepdims=True)
  uneven = jnp.abs(load - mean) > 1e-6 * mean
  return bias - rate * jnp.sign(load - mean) * uneven


def _balance(grads: types.Params) -> dict[str, Array]:
  """Metrics of the experts' loads, means over layers; none without experts."""
  loads = [load.reshape(-1, load.shape[-1])
           for path, load in jax.tree_util.tree_leaves_with_path(grads)
           if _is_router_bias(path)]
  if not loads:
    return {}
  load = jnp.concatenate(loads)
  relative = masked.divide(load, jnp.mean(load, -1, keepdims=True))
  return {'moe/load_max_over_mean': jnp.mean(jnp.max(relative, -1)),
          'moe/load_min_over_mean': jnp.mean(jnp.min(relative, -1))}


def state_shardings(
    optimizer: Optimizer,
    params: types.Params,
    param_shardings: Any,
    counters: jax.sharding.Sharding,
) -> Any:
  """Shardings of the optimizer's state: as their parameters', but counters.

  State that is offloaded is in pinned memory of the hosts, cut in the same way;
  not that of the vectors of layers, of which XLA takes no single one from there
  in bfloat16.
  """
  def of_param(leaf, param, sharding, in_layers):
    sharding = moments.sharding_of(leaf, param, sharding)
    stays = optimizer.offload is None or in_layers and leaf.ndim < 3
    return sharding if stays else sharding.with_memory_kind('pinned_host')

  in_layers = jax.tree_util.tree_map_with_path(
      lambda path, _: path[0].key in (optimizer.offload or ()), weights(params))
  return optax.tree_map_params(
      optimizer, of_param, jax.eval_shape(optimizer.init, params),
      weights(params), weights(param_shardings), in_layers,
      transform_non_params=lambda _: counters)


def global_norm(tree: Any) -> Array:
  """f32[]: the Euclidean norm of all leaves together."""
  return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32)))
                      for leaf in jax.tree.leaves(tree)))


def update(
    optimizer: Optimizer, grads: types.Params, state: types.TrainState
) -> tuple[types.TrainState, dict[str, Array]]:
  """One update, or none where it or its gradient is not finite.

  Args:
    optimizer: from `make_optimizer`.
    grads: like `state.params`.
    state: its opt_state is of `optimizer`.

  Returns:
    The state with new params and opt_state in their old dtypes, bitwise the old
    ones after a skipped update (the schedule does not advance either), and with
    a new `skipped`, 0 after an update that was made; and the metrics of this
    update. `state.step` is the caller's to count.
  """
  params, opt_state = state.params, state.opt_state
  inner = opt_state.inner if optimizer.master_weights else opt_state
  rate = optimizer.schedule(inner[-1].count)
  norm = global_norm(weights(grads))
  finite = jnp.isfinite(norm)
  step = functools.partial(_step, optimizer, norm)
  if optimizer.offload is None:
    finite &= floats.is_finite(step(grads, opt_state, params))
    # Computed again, where it is to be kept: so the new state takes the place
    # of the old, and is never in memory beside it.
    def made(grads, *old):
      return jax.tree.map(lambda new, old: new.astype(old.dtype),
                          step(grads, old[1], old[0]), old)

    params, opt_state = jax.lax.cond(
        finite, made, lambda _, *old: old, grads, params, opt_state)
  else:
    (params, opt_state), finite = offload_lib.update(
        step, grads, opt_state, params, optimizer.offload, finite)
  metrics = {
      'optim/grad_norm': norm,  # before clipping
      'optim/lr': jnp.asarray(rate, jnp.float32),
      'optim/skipped': 1.0 - finite.astype(jnp.float32),
  } | _balance(grads)
  skipped = jnp.where(finite, 0, state.skipped + 1)
  return state._replace(
      params=params, opt_state=opt_state, skipped=skipped), metrics


def _step(optimizer: Optimizer, norm: Array, grads: types.Params, state: Any,
          params: types.Params) -> tuple[types.Params, Any]:
  """The parameters and state that gradients, of this norm together, lead to."""
  inner, exact = state, _float32(params)
  if optimizer.master_weights:
    inner, exact = state.inner, _current(state.weights, params)
  changes, inner = optimizer.inner.update(
      _clipped(_float32(grads), norm, optimizer.clip_norm), inner, exact)
  exact = optax.apply_updates(exact, changes)
  new_params = jax.tree.map(
      lambda new, old, grad: balanced(old, grad, optimizer.router_bias_rate)
      if new is None else floats.rounded(new, old.dtype).astype(old.dtype),
      exact, params, grads, is_leaf=lambda x: x is None)
  return new_params, (
      MasterState(inner, exact) if optimizer.master_weights else inner)


def _clipped(grads: types.Params, norm: Array, limit: float) -> types.Params:
  """Gradients, scaled to the limit if their norm is not below it."""
  if not limit:
    return grads
  scale = jnp.where(norm < limit, 1., limit / norm)
  return jax.tree.map(lambda grad: scale * grad, grads)


def _current(masters: Any, params: types.Params) -> Any:
  """The master weights; of a parameter that was set since, its own value."""
  def current(master, param):
    value = param.astype(jnp.float32)
    return jnp.where(
        floats.rounded(master, param.dtype) == value, master, value)

  return jax.tree.map(current, masters, weights(params))

