"""Divergence of a student's next-token distribution from its teacher's.

The paper distils on samples alone (DeepSeek-R1, arXiv 2501.12948, 2.4). This is
an alternative for a teacher and a student of the same vocabulary: it takes the
logits of both and returns one divergence per token.
"""

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.types import Array


def divergence(student_XV: Array, teacher_XV: Array, kind: str, *,
               temperature: float = 1., top_k: int = 0) -> Array:
  """KL between teacher p and student q at a temperature, f32[X], in nats.

  Args:
    student_XV: the student's logits; only they receive a gradient.
    teacher_XV: the teacher's logits.
    kind: 'forward', KL(p || q) (Hinton et al., arXiv 1503.02531), makes the
      student cover all that the teacher might say; 'reverse', KL(q || p)
      (MiniLLM, arXiv 2306.08543), confines it to what the teacher is likely to
      say.
    temperature: divides both logits. The KL is multiplied by its square, so
      that the gradient keeps its size.
    top_k: all tokens but the teacher's k most likely count as one outcome: a
      lower bound of the KL that needs k + 1 numbers per token. 0: every token
      is an outcome of its own.

  Example: p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): forward and reverse are
  ln(2) / 4 = 0.1733. With top_k = 1 they are KL between (1/2, 1/2) and
  (1/4, 3/4): 0.1438 and 0.1308.
  """
  teacher_XV = lax.stop_gradient(teacher_XV)
  logp, logq = (jax.nn.log_softmax(x.astype(jnp.float32) / temperature, -1)
                for x in (teacher_XV, student_XV))
  if 0 < top_k < logp.shape[-1] - 1:
    _, index = lax.top_k(logp, top_k)
    logp, logq = (_with_rest(x, index) for x in (logp, logq))
  first, second = {'forward': (logp, logq), 'reverse': (logq, logp)}[kind]
  return temperature ** 2 * jnp.sum(jnp.exp(first) * (first - second), -1)


def _with_rest(logp_XV: Array, index_XK: Array) -> Array:
  """log p of the tokens at `index`, then of all others together: [X, K + 1].
  """
  chosen = jnp.zeros(logp_XV.shape, bool)
  chosen = jnp.put_along_axis(chosen, index_XK, True, -1, inplace=False)
  rest = jax.nn.logsumexp(logp_XV, -1, where=~chosen, keepdims=True)
  return jnp.concatenate(
      [jnp.take_along_axis(logp_XV, index_XK, -1), rest], -1)
