"""The optimizer: AdamW under a schedule, and updates that refuse infinities.

optax supplies the parts. `update` is the one way parameters change: it clips
by the global norm, steps, and leaves parameters and optimizer state bitwise
alone where a gradient is not finite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from r1jax import config
from r1jax import types

Array = types.Array


class Optimizer(NamedTuple):
  tx: optax.GradientTransformation
  schedule: Callable[[Array], Array]  # updates made so far -> learning rate


def schedule(
    kind: str, lr: float, steps: int, warmup_steps: int, final_fraction: float
) -> Callable[[Array], Array]:
  """The learning rate of each update.

  Args:
    kind: 'constant', or 'cosine' down to lr * final_fraction at `steps`.
    lr: the peak, reached after `warmup_steps` of linear rise from 0.
    steps: updates in all, the warm-up among them.
    warmup_steps: 0 begins at the peak.
    final_fraction: of `lr`, left at the end of a cosine.

  Raises:
    ConfigError: an unknown kind, or a warm-up that leaves no update.
  """
  if kind == 'constant':
    rest = optax.constant_schedule(lr)
  elif kind == 'cosine':
    if warmup_steps >= max(steps, 1):
      raise config.error('optim.warmup_steps', f'fewer than the {steps} '
                         'updates of the run', warmup_steps)
    rest = optax.cosine_decay_schedule(
        lr, max(steps - warmup_steps, 1), final_fraction)
  else:
    raise config.error('optim.schedule', "'constant' or 'cosine'", kind)
  if not warmup_steps:
    return rest
  # The first update takes lr / warmup_steps: a rate of 0 would be no update.
  rise = optax.linear_schedule(lr / warmup_steps, lr, max(warmup_steps - 1, 1))
  return optax.join_schedules([rise, rest], [warmup_steps])


def decays(params: types.Params) -> Any:
  """Which parameters weight decay touches: matrices, no norms or biases.

  Told by name, since a stack of layers makes matrices of its norm scales.
  """
  def one(path, leaf):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    spared = any(word in name for word in ('bias', 'scale', 'norm'))
    return leaf.ndim > 1 and not spared
  return jax.tree_util.tree_map_with_path(one, params)


def make(
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
) -> Optimizer:
  """AdamW (Loshchilov & Hutter, arXiv 1711.05101); `clip_norm` 0 is no clip."""
  rate = schedule(kind, lr, steps, warmup_steps, final_fraction)
  tx = optax.chain(
      optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
      optax.scale_by_adam(b1, b2, eps),
      optax.add_decayed_weights(weight_decay, mask=decays),
      optax.scale_by_learning_rate(rate),
  )
  return Optimizer(tx, rate)


def state_shardings(
    tx: optax.GradientTransformation,
    params: types.Params,
    param_shardings: Any,
    otherwise: jax.sharding.Sharding,
) -> Any:
  """Moments live where their parameters do, counters `otherwise`."""
  return optax.tree_map_params(
      tx, lambda _, where: where, jax.eval_shape(tx.init, params),
      param_shardings, transform_non_params=lambda _: otherwise)


def global_norm(tree: Any) -> Array:
  """f32[]: the Euclidean norm of all leaves together."""
  return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32)))
                      for leaf in jax.tree.leaves(tree)))


def update(
    optimizer: Optimizer,
    grads: types.Params,
    params: types.Params,
    opt_state: Any,
    skipped: Array,
) -> tuple[types.Params, Any, Array, dict[str, Array]]:
  """One update, or none where the gradient's norm is not finite.

  Args:
    optimizer: from `make`.
    grads: like `params`.
    params: the parameters.
    opt_state: of `optimizer.tx`.
    skipped: i32[], updates skipped in a row before this one.

  Returns:
    New params and opt_state in their old dtypes, bitwise the old ones after a
    skipped update (the schedule does not advance either); the new `skipped`, 0
    after an update that was made; and the metrics of this update.
  """
  norm = global_norm(grads)
  finite = jnp.isfinite(norm)
  changes, new_state = optimizer.tx.update(grads, opt_state, params)
  new_params = optax.apply_updates(params, changes)
  rate = optimizer.schedule(opt_state[-1].count)
  keep = lambda new, old: jnp.where(finite, new.astype(old.dtype), old)
  params, opt_state = jax.tree.map(
      keep, (new_params, new_state), (params, opt_state))
  metrics = {
      'optim/grad_norm': norm,  # before clipping
      'optim/lr': jnp.asarray(rate, jnp.float32),
      'optim/skipped': 1.0 - finite.astype(jnp.float32),
  }
  return params, opt_state, jnp.where(finite, 0, skipped + 1), metrics
