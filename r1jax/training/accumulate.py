"""Gradients over micro-batches: sums and denominators travel apart.

A loss is a sum over tokens or responses divided by how many there are in the
whole batch. Each micro-batch gives its own (sum, denominator); the sums, the
denominators and the gradients of the sums are added, and divided once. So
the number of micro-batches never changes a loss.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import masked
from r1jax.types import Array, Params

Pair = tuple[Array, Array]  # sum, denominator


def split(tree: Any, micro_batches: int) -> Any:
  """Micro-batches: [B, ...] -> [micro_batches, B / micro_batches, ...].

  Each has every `micro_batches`-th row, so that a batch split over devices
  stays on them.
  """
  return jax.tree.map(
      lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1),
      tree)


def join(tree: Any) -> Any:
  """The inverse of `split`."""
  return jax.tree.map(
      lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)


def gradients(
    loss: Callable[[Params, Any], tuple[Pair, dict[str, Pair]]],
    params: Params,
    micro_batches: Any,
) -> tuple[Params, dict[str, Array]]:
  """The gradient of sum / denominator over all micro-batches.

  Args:
    loss: (params, micro-batch) -> (sum, denominator) of the loss, and of
      further metrics by name.
    params: where the gradient is taken.
    micro_batches: a tree whose leaves have the micro-batch as first axis.

  Returns:
    The gradient in float32, and {'loss': ..., name: ...} as means over
    everything.
  """
  def of_micro_batch(batch):
    def loss_sum(params):
      (value, count), metrics = loss(params, batch)
      return value, {'loss': (value, count)} | metrics
    grads, metrics = jax.grad(loss_sum, has_aux=True)(params)
    return jax.tree.map(lambda g: g.astype(jnp.float32), grads), metrics

  def add(total, batch):
    return jax.tree.map(jnp.add, total, of_micro_batch(batch)), None

  first = jax.tree.map(lambda x: x[0], micro_batches)
  if jax.tree.leaves(micro_batches)[0].shape[0] == 1:
    grads, metrics = of_micro_batch(first)  # a sum would hold gradients twice
  else:
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype),
                        jax.eval_shape(of_micro_batch, first))
    (grads, metrics), _ = lax.scan(add, zero, micro_batches)
  count = metrics['loss'][1]
  grads = jax.tree.map(lambda g: masked.divide(g, count), grads)
  return grads, {k: masked.divide(*pair) for k, pair in metrics.items()}
