"""Parts of a decoder: parameters, products, norms, the MLP, the scalar head."""

import functools
import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.kernels import padding
from r1jax.models import architecture
from r1jax.parallel import sharding
from r1jax.types import Array

# Parameters that are computed with in float32, whatever the config's dtype.
FLOAT32 = ('scale', 'router', 'router_bias')


class Adapted(NamedTuple):
  """A frozen weight with LoRA's factors: in effect weight + a b."""
  weight: Array
  a: Array  # [inputs, rank], the weight's input axes
  b: Array  # [rank, outputs], the weight's output axes


class Matrices(NamedTuple):
  """A prepared weight (prepared.py), of the layer `index` of several."""
  layers: tuple[Array, ...]  # [outputs..., inputs], all inputs in one axis
  index: Array | None = None  # i32[]; None: there is one layer


def constrain(place: sharding.Placement | None, x: Array,
              axes: sharding.Axes) -> Array:
  """`x`, placed by its logical axes if there is a mesh."""
  return x if place is None else place.constrain(x, axes)


def pad_length(place: sharding.Placement | None, x_BT: Array) -> Array:
  """[B, T, ...] with zeros after it, up to a length that the mesh divides."""
  parts = 1 if place is None else place.size(
      *place.partition_spec(('length',)))
  return padding.columns(x_BT, parts)


def param(module: nn.Module, name: str, axes: tuple[str, ...],
          size: tuple[int, ...], init: nn.initializers.Initializer,
          whole: bool = True) -> Array | Adapted | Matrices:
  """A parameter of `module` with logical axes, in the dtype of computation.

  On a mesh it is gathered over the devices that split a batch, unless `whole`
  is False.
  """
  if module.has_variable('matrices', name):
    return module.get_variable('matrices', name)
  c = module.config
  weight = module.param(name, nn.with_logical_partitioning(init, axes), size,
                        jnp.dtype(c.param_dtype)).astype(c.dtype)
  if whole and module.place is not None:
    weight = gather(module.place, axes, weight)
  if not module.has_variable('lora', name):
    return weight
  factors = module.get_variable('lora', name)
  return Adapted(weight, factors['a'].astype(c.dtype),
                 (c.lora_scale * factors['b']).astype(c.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def gather(place: sharding.Placement, axes: sharding.Axes, weight: Array
           ) -> Array:
  """A weight, whole over the mesh axes that split a batch (FSDP).

  Left to itself, XLA may multiply each device's part of the weight instead, and
  write as many partial sums of all tokens as there are devices. The gradient is
  computed whole on each device from its rows, and then summed into the part
  that each keeps: XLA for TPUs would else compute it in as many pieces as there
  are devices (a windowed product), and read all activations for each of them.
  """
  return place.whole(weight, axes)


gather.defvjp(
    lambda place, axes, weight: (gather(place, axes, weight), None),
    lambda place, axes, _, gradient: (
        place.constrain(place.whole(gradient, axes), axes),))


def linear(fan_in: int, scale: float = 1.) -> nn.initializers.Initializer:
  """The initializer of a weight whose product keeps the inputs' variance."""
  return nn.initializers.truncated_normal(scale * fan_in ** -0.5)


def dense(x: Array, weight: Array | Adapted | Matrices, contract: int = 1,
          dtype: jnp.dtype | None = None) -> Array:
  """x times weight, over x's last `contract` axes and the weight's first.

  The other axes of x are flattened first: the product of a weight's gradient
  then sums over one axis, and XLA does not write its operand transposed. But of
  one token a row, as while sampling: from a stack of layers XLA for TPUs copies
  a weight that is flattened before it reads it.
  """
  if isinstance(weight, Matrices):
    return _dense_prepared(x, weight, contract, dtype)
  if isinstance(weight, Adapted):
    return dense(x, weight.weight, contract, dtype) + dense(
        dense(x, weight.a, contract), weight.b, dtype=dtype)
  rows, columns = x.shape[:x.ndim - contract], weight.shape[contract:]
  if rows[-1:] == (1,):
    return jnp.tensordot(x, weight, contract, preferred_element_type=dtype)
  size = math.prod(weight.shape[:contract])
  y = jnp.matmul(x.reshape(math.prod(rows), size), weight.reshape(size, -1),
                 preferred_element_type=dtype)
  return y.reshape(rows + columns)


def _dense_prepared(x: Array, weight: Matrices, contract: int,
                    dtype: jnp.dtype | None) -> Array:
  """As `dense`, the weight on the left: XLA for CPUs reads it as it lies."""
  x_ND = x.reshape(math.prod(x.shape[:-contract]), -1)

  def product(weight, x_ND):
    return jax.lax.dot_general(
        weight.reshape(-1, weight.shape[-1]), x_ND, (((1,), (1,)), ((), ())),
        preferred_element_type=dtype)

  if weight.index is None:
    y_EN = product(weight.layers[0], x_ND)
  else:
    y_EN = jax.lax.switch(weight.index, [
        functools.partial(product, layer) for layer in weight.layers], x_ND)
  # XLA would swap the operands of a transposed product.
  y_NE = jax.lax.optimization_barrier(y_EN).T
  return y_NE.reshape(*x.shape[:-contract], *weight.layers[0].shape[:-1])


def activate(config: architecture.Config, x: Array) -> Array:
  """The config's activation function of x."""
  return architecture.ACTIVATIONS[config.activation](x)


class RMSNorm(nn.Module):
  """x / rms(x) * (norm_offset + scale), in float32."""
  config: architecture.Config
  eps: float | None = None  # None: the config's

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    scale = self.param(
        'scale', nn.with_logical_partitioning(
            nn.initializers.constant(1. - c.norm_offset), ('norm',)),
        x.shape[-1:], jnp.dtype(c.param_dtype))
    # With a batch of one, XLA for CPUs takes ten times as long for the sums.
    y = (x[0] if len(x) == 1 else x).astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True)
                          + (self.eps or c.rms_eps))
    if c.norm_offset:
      scale = c.norm_offset + scale.astype(jnp.float32)
    return (y * scale).reshape(x.shape).astype(x.dtype)


class MLP(nn.Module):
  """down(activation(gate(x)) * up(x))."""
  config: architecture.Config
  place: sharding.Placement | None = None
  mlp: int | None = None  # feed-forward width; None: the config's

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    c = self.config
    mlp = self.mlp or c.mlp
    gate, up = (param(self, name, ('embed', 'mlp'), (c.width, mlp),
                      linear(c.width)) for name in ('gate', 'up'))
    down = param(self, 'down', ('mlp', 'embed'), (mlp, c.width),
                 linear(mlp, (2 * c.layers) ** -0.5))
    # Only the two products are stored; the backward pass gates them again.
    gated = jax.checkpoint(lambda gate, up: activate(c, gate) * up)
    return dense(gated(dense(x_BTD, gate), dense(x_BTD, up)), down)


class Score(nn.Module):
  """The scalar head of a reward model or critic: hidden . kernel - offset.

  float32. The offset is not trained: it is measured after a reward model's
  training as the mean score of reference responses, which so becomes 0.
  """
  config: architecture.Config

  @nn.compact
  def __call__(self, hidden_BTD: Array) -> Array:
    c = self.config
    dtype = jnp.dtype(c.param_dtype)
    # N(0, 1 / (width + 1)): Ziegler et al., arXiv 1909.08593, section 2.1.
    kernel_D = self.param(
        'kernel', nn.with_logical_partitioning(
            nn.initializers.normal((c.width + 1) ** -0.5), ('norm',)),
        (c.width,), dtype)
    offset = self.param(
        'offset', nn.with_logical_partitioning(nn.initializers.zeros, ()), (),
        dtype)
    score_BT = jnp.einsum('btd,d->bt', hidden_BTD, kernel_D.astype(c.dtype),
                          preferred_element_type=jnp.float32)
    return score_BT - jax.lax.stop_gradient(offset.astype(jnp.float32))
