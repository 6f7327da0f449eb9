"""Adam's two moments: how they are stored, and where.

The state of an optimizer, in bytes a parameter of Qwen2.5-32B (32.8e9), beside
parameters and gradients; with master weights 4 more:

    first_moment  second_moment    bytes      GB
    float32       float32              8   262.1
    bfloat16      float32              6   196.6
    bfloat16      bfloat16             4   131.1
    float32       factored         4.005   131.2
    bfloat16      factored         2.005    65.7
    none (b1 = 0) factored         0.005     0.2

With `offload` (offload.py) it is in the memory of the hosts, but for vectors.

bfloat16 has 8 bits. A moment goes (1 - b) of the way to a new value, and a step
of less than 2^-8 of it is rounded away: it stands still once it is within
2^-8 / (1 - b). That is 8 % where b is 0.95, as in DeepSeek-V3, whose moments
are in bfloat16 (arXiv 2412.19437, sec. 3.3.3), but 390 % where b is 0.999. So a
b of more than 31/32, 12 %, is refused.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from r1jax import errors
from r1jax.training import floats
from r1jax.types import Array

MAX_COARSE_DECAY = 1 - 2 ** -5
FACTORED_SIZE = 128  # a matrix with a smaller side is not worth factoring


def scale_by_moments(b1: float, b2: float, eps: float, first: str, second: str
                     ) -> optax.GradientTransformation:
  """Adam's update before the learning rate; Adafactor's if factored.

  Adam (arXiv 1412.6980, alg. 1): m / (sqrt(v) + eps), means of g and g^2
  without the bias of their start. Factored, v of a matrix is the outer product
  of its means over columns and over rows, divided by its mean over both
  (Shazeer & Stern, arXiv 1804.04235, alg. 4), and the first moment is that of
  g / sqrt(v), as in Zhai et al. (arXiv 2106.04560, sec. 3.4). b2 and eps are
  Adam's: the same means without bias, and eps^2 is added to g^2.

  Args:
    b1, b2: decays of the moments. Where b1 is 0 a factored optimizer has no
      first moment.
    eps: bounds the divisor.
    first: how m is stored: 'float32' or 'bfloat16'.
    second: how v is stored: 'float32', 'bfloat16' or 'factored', which is of
      float32 and of matrices with two sides of `FACTORED_SIZE` or more.

  Raises:
    ConfigError: a decay that bfloat16 cannot follow.
  """
  for name, decay, dtype in (('b1', b1, first), ('b2', b2, second)):
    if dtype == 'bfloat16' and decay > MAX_COARSE_DECAY:
      raise errors.expected(
          f'optim.{name}', f'at most {MAX_COARSE_DECAY} for a moment in '
          'bfloat16, which loses the steps of a slower one', decay)
  if second != 'factored':
    return _stored(optax.scale_by_adam(b1, b2, eps), mu=first, nu=second)
  return optax.chain(
      optax.scale_by_factored_rms(
          decay_rate=b2, decay_rate_fn=_without_bias,
          epsilon=max(eps ** 2, 1e-30), min_dim_size_to_factor=FACTORED_SIZE),
      _stored(optax.ema(b1), ema=first) if b1 else optax.identity())


def _without_bias(count: Array, b2: float) -> Array:
  """The decay of update `count`, from 0, that makes a mean without bias.

  That is sum b2^(t - i) g_i^2 / sum b2^(t - i) (arXiv 1804.04235, sec. 7.1).
  """
  return b2 * (1 - b2 ** count) / (1 - b2 ** (count + 1))


def _stored(inner: optax.GradientTransformation, **dtypes: str
            ) -> optax.GradientTransformation:
  """`inner`, computed in float32, with fields of its state in these dtypes."""
  def put(state, dtypes):
    cast = lambda tree, dtype: jax.tree.map(
        lambda x: floats.rounded(x, dtype).astype(dtype), tree)
    return state._replace(**{
        name: cast(getattr(state, name), jnp.dtype(dtype))
        for name, dtype in dtypes.items()})

  def update(grads, state, params=None):
    exact = put(state, dict.fromkeys(dtypes, 'float32'))
    changes, state = inner.update(grads, exact, params)
    return changes, put(state, dtypes)

  return optax.GradientTransformation(
      lambda params: put(inner.init(params), dtypes), update)


def is_factored(shape: tuple[int, ...]) -> bool:
  """Whether the second moment of a parameter can be factored."""
  return len(shape) > 1 and sorted(shape)[-2] >= FACTORED_SIZE


def sharding_of(leaf: Any, param: Any, sharding: jax.sharding.NamedSharding
                ) -> jax.sharding.NamedSharding:
  """Where a leaf of the state lives, beside its parameter.

  Args:
    leaf: like the parameter; or the means of a matrix over one axis; or one
      number that takes the place of what is not kept.
    param, sharding: of the parameter.
  """
  if leaf.shape == param.shape:
    return sharding
  spec = jax.sharding.PartitionSpec()
  # scale_by_factored_rms takes the means over one of the two longest axes.
  for axis in np.argsort(param.shape)[-2:]:
    if leaf.shape == (*param.shape[:axis], *param.shape[axis + 1:]):
      spec = jax.sharding.PartitionSpec(*np.delete(sharding.spec, axis))
  return jax.sharding.NamedSharding(sharding.mesh, spec)
