"""Attention over parts is attention over all their keys at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import attention

ROWS, LENGTH, HEADS, KV_HEADS, SIZE = 4, 3, 4, 2, 5
# Rows that share a part, keys: a prompt of two groups, the past, the new.
PARTS = ((2, 6), (1, 4), (1, 3))


def _parts(rng, shapes=PARTS):
  """Random masks; the first key of the last part is seen by all."""
  parts = []
  for group, keys in shapes:
    x = ROWS // group
    mask = rng.random((x, group, LENGTH, keys)) < 0.6
    parts.append(attention.Part(
        rng.normal(size=(x, KV_HEADS, SIZE, keys)).astype('f'),
        rng.normal(size=(x, KV_HEADS, keys, SIZE)).astype('f'), mask))
  parts[-1].mask[..., 0] = True
  return parts


def _queries(rng):
  return rng.normal(size=(ROWS, LENGTH, HEADS, SIZE)).astype('f')


def _loops(q, parts, softcap):
  """Float64, a row, a query and a head at a time."""
  out = np.zeros(q.shape)
  for n, t, head in np.ndindex(q.shape[:3]):
    keys, values, kv_head = [], [], head * KV_HEADS // HEADS
    for part in parts:
      x, g = divmod(n, ROWS // part.k.shape[0])
      for s in np.flatnonzero(part.mask[x, g, t]):
        keys.append(part.k[x, kv_head, :, s].astype(float))
        values.append(part.v[x, kv_head, s].astype(float))
    score = np.array(keys) @ q[n, t, head]
    if softcap:
      score = softcap * np.tanh(score / softcap)
    weight = np.exp(score - score.max())
    out[n, t, head] = weight @ np.array(values) / weight.sum()
  return out


def _plain(q, kvs, masks, softcap):
  """Every part copied to its rows, one softmax over everything."""
  copies = lambda x: jnp.repeat(x, ROWS // x.shape[0], 0)
  heads = lambda x: jnp.repeat(x, HEADS // KV_HEADS, 1)
  k = jnp.concatenate([heads(copies(k)) for k, _ in kvs], -1)
  v = jnp.concatenate([heads(copies(v)) for _, v in kvs], -2)
  mask = jnp.concatenate(
      [m.reshape(ROWS, 1, LENGTH, -1) for m in masks], -1)
  score = jnp.einsum('nthd,nhds->nhts', q, k)
  if softcap:
    score = softcap * jnp.tanh(score / softcap)
  weight = jax.nn.softmax(jnp.where(mask, score, -jnp.inf), -1)
  return jnp.einsum('nhts,nhsd->nthd', weight, v)


@pytest.mark.parametrize('softcap', [None, 1.5])
@pytest.mark.parametrize('count', [1, 2, 3])
def test_parts_are_joined_exactly(count, softcap):
  rng = np.random.default_rng(count)
  q, parts = _queries(rng), _parts(rng, PARTS[-count:])
  got = jax.jit(lambda q, p: attention.attend(q, p, softcap=softcap))(q, parts)
  np.testing.assert_allclose(got, _loops(q, parts, softcap), atol=1e-5)


@pytest.mark.parametrize('softcap', [None, 1.5])
def test_gradients_are_those_of_plain_attention(softcap):
  rng = np.random.default_rng(0)
  q, parts = _queries(rng), _parts(rng)
  kvs, masks = [p[:2] for p in parts], [p.mask for p in parts]

  def joined(q, kvs):
    return attention.attend(
        q, [attention.Part(k, v, m) for (k, v), m in zip(kvs, masks)],
        softcap=softcap)

  gradient = lambda f: jax.jit(jax.grad(
      lambda q, kvs: jnp.sum(jnp.sin(f(q, kvs))), (0, 1)))(q, kvs)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
      gradient(joined),
      gradient(lambda q, kvs: _plain(q, kvs, masks, softcap)))


@pytest.mark.parametrize('hidden', [0, 1, 2])
def test_a_part_that_nobody_sees_does_not_exist(hidden):
  """Not in the value, and with gradient 0, however large its keys are."""
  rng = np.random.default_rng(0)
  q, parts = _queries(rng), _parts(rng)
  for part in parts:
    part.mask[..., 0] = True
  part = parts[hidden]
  parts[hidden] = part._replace(
      k=part.k * 1e4, mask=np.zeros_like(part.mask))
  rest = parts[:hidden] + parts[hidden + 1:]
  np.testing.assert_allclose(
      attention.attend(q, parts), attention.attend(q, rest), atol=1e-6)

  def total(k, v):
    parts[hidden] = parts[hidden]._replace(k=k, v=v)
    return jnp.sum(attention.attend(q, parts))

  for gradient in jax.grad(total, (0, 1))(*parts[hidden][:2]):
    np.testing.assert_array_equal(gradient, 0)


def test_a_query_that_sees_nothing_is_harmless():
  rng = np.random.default_rng(0)
  q, parts = _queries(rng), _parts(rng)
  for part in parts:
    part.mask[-1, -1, 0] = False  # the first query of the last row
  value, gradient = jax.value_and_grad(
      lambda q: jnp.sum(attention.attend(q, parts)[-1, 0]))(q)
  assert value == 0
  np.testing.assert_array_equal(gradient, 0)


def test_large_scores_do_not_overflow():
  rng = np.random.default_rng(0)
  q, parts = _queries(rng) * 1e3, _parts(rng)
  got = attention.attend(q, parts)
  assert np.all(np.isfinite(got))
  assert np.abs(got).max() <= max(np.abs(p.v).max() for p in parts) + 1e-5


def test_scores_far_below_0_are_seen_and_what_is_masked_is_not():
  rng = np.random.default_rng(0)
  q = np.abs(_queries(rng)) * 1e3
  parts = [part._replace(k=-np.abs(part.k)) for part in _parts(rng)]
  np.testing.assert_allclose(
      attention.attend(q, parts), _loops(q, parts, None), atol=.01)


def test_bfloat16_queries_leave_as_bfloat16():
  rng = np.random.default_rng(0)
  q, parts = _queries(rng), _parts(rng)
  half = lambda x: jnp.asarray(x, jnp.bfloat16)
  q = half(10 * q)  # scores of 40, which bfloat16 rounds to quarters
  parts = [attention.Part(half(k), half(v), m) for k, v, m in parts]
  got = attention.attend(q, parts)
  assert got.dtype == jnp.bfloat16
  full = [attention.Part(*map(np.float32, part[:2]), part.mask)
          for part in parts]
  np.testing.assert_allclose(
      got.astype(jnp.float32), _loops(np.float32(q), full, None), atol=.02)
