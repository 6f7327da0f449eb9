"""The scalar head: what makes a decoder a reward model or a critic.

It takes the place of the output matrix (Ziegler et al., arXiv 1909.08593; the
slides' r_phi, pi_SFT with its last linear layer replaced).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.models import shape


class Score(nn.Module):
  """hidden . kernel - offset, float32.

  The offset is no weight but a measurement, made when a reward model has been
  trained: the mean score of reference responses, which so becomes 0.
  """
  config: shape.Config

  @nn.compact
  def __call__(self, hidden_BTD):
    c = self.config
    dtype = jnp.dtype(c.param_dtype)
    # N(0, 1 / (width + 1)) as arXiv 1909.08593, section 2.1 has it.
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
