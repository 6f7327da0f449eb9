"""Gradients over micro-batches: sums and denominators travel apart.

A loss is a sum over tokens or responses divided by how many there are in the
whole batch. Each micro-batch gives its own (sum, denominator); the sums, the
denominators and the gradients of the sums are added, and divided once. So
the number of micro-batches never changes a loss.
"""

from collections.abc import Callable
import functools
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
  count = jax.tree.leaves(micro_batches)[0].shape[0]
  return gradients_of(
      loss, params, count, functools.partial(one_of, micro_batches))


def one_of(tree: Any, index: int | Array) -> Any:
  """Entry `index` of the first axis of every array."""
  return jax.tree.map(
      lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def gradients_of(
    loss: Callable[[Params, Any], tuple[Pair, dict[str, Pair]]],
    params: Params, count: int | Array, take: Callable[[Array], Any],
) -> tuple[Params, dict[str, Array]]:
  """`gradients` over the micro-batches take(0), ..., take(count - 1).

  `count` may be known at run time only, and be 0.
  """
  @functools.partial(jax.jit, inline=True)  # traced once for shapes and loop
  def of_micro_batch(index):
    batch = take(index)
    def loss_sum(params):
      pair, metrics = loss(params, batch)
      return pair[0], {'loss': pair} | metrics
    grads, metrics = jax.grad(loss_sum, has_aux=True)(params)
    return jax.tree.map(lambda g: g.astype(jnp.float32), grads), metrics

  if isinstance(count, int) and count == 1:
    grads, metrics = of_micro_batch(0)  # a sum would hold gradients twice
  else:
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype),
                        jax.eval_shape(of_micro_batch, 0))
    with jax.named_scope('micro_batches'):  # plans know it by this
      grads, metrics = lax.fori_loop(
          0, count, lambda index, total: jax.tree.map(
              jnp.add, total, of_micro_batch(index)), zero)
  total = metrics['loss'][1]
  grads = jax.tree.map(lambda g: masked.divide(g, total), grads)
  return grads, {k: masked.divide(*pair) for k, pair in metrics.items()}
