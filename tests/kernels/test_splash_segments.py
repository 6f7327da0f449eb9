"""Splash attention of responses packed behind their prompt gives what XLA gives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from experiments import machine_sections
from r1jax.kernels import fused_attention
from r1jax.kernels import packing
from r1jax.models import attention
from r1jax.models import row_attention
from r1jax.parallel import sharding

LENGTHS = [[130, 60, 50], [1, 259], [260], [40, 4, 3, 150]]  # of responses
PROMPTS, COLUMNS, TOKENS = np.array([140, 37]), 140, 260


def _layout():
  """Rows of a prompt and two rows of whole responses, padded."""
  segment = np.zeros((len(LENGTHS), TOKENS), np.int32)
  position = segment + np.repeat(PROMPTS, 2)[:, None]
  for n, row in enumerate(LENGTHS):
    segment[n, :sum(row)] = np.repeat(np.arange(len(row)) + 1, row)
    position[n, :sum(row)] += np.concatenate([np.arange(i) for i in row])
  return attention.Layout(
      jnp.tile(jnp.arange(COLUMNS), (2, 1)), responses=attention.Layout(
          jnp.asarray(position), jnp.asarray(segment),
          prompt_length=jnp.asarray(PROMPTS)))


def _results(kernel, place=None, value=8, **switches):
  """Responses' outputs and the gradients of a weighted sum: global, local."""
  layout = _layout()
  real = (layout.responses.segment > 0)[..., None, None]
  config = tiny.config(attention_kernel=kernel, head_size=8, **switches)
  rng = np.random.default_rng(0)
  length = COLUMNS + 2 * TOKENS
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  q, k, v = (normal(2, length, heads, size) for heads, size in (
      (4, 8), (2, 8), (2, value)))
  weight = normal(len(LENGTHS), TOKENS, 4, value) * real

  @jax.jit
  def run(local, *qkv):
    def loss(*qkv):
      layer = attention.LayerInputs(None, local, None)
      out = row_attention.attend(config, place, layout, layer, *qkv)
      out = attention.split_responses(layout, out)[1] * real
      return jnp.sum(out * weight), out
    return jax.grad(loss, (0, 1, 2), has_aux=True)(*qkv)

  return [run(jnp.asarray(local), q, k, v) for local in (False, True)]


def _assert_same(got, wanted):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, rtol=2e-4, atol=2e-5), got, wanted)


SLOW = pytest.mark.slow


@pytest.mark.parametrize('switches', [
    dict(window=60, softcap_attention=0.5, value=5),
    pytest.param({}, marks=SLOW), pytest.param(dict(value=5), marks=SLOW),
    pytest.param(dict(softcap_attention=0.5), marks=SLOW)], ids=str)
def test_as_xla(switches):
  _assert_same(_results('splash', **switches), _results('xla', **switches))


@pytest.mark.parametrize('kernel, sizes, switches', [
    ('splash', dict(fsdp=2, tensor=2, context=2), {}),
    ('xla', dict(data=2, context=2), dict(window=60)),
    *(pytest.param('splash', sizes, dict(window=60), marks=SLOW) for sizes in (
        dict(fsdp=2, tensor=2), dict(context=4), dict(data=2, context=2)))],
    ids=str)
def test_on_a_mesh(kernel, sizes, switches):
  devices = jax.devices()[:math.prod(sizes.values())]
  place = sharding.Placement(
      sharding.make_mesh(sizes, devices), machine_sections.RULES)
  _assert_same(_results(kernel, place, **switches),
               _results('xla', **switches))


@pytest.mark.parametrize('prompt', [0, 300])
@pytest.mark.parametrize('window', [None, 150])
def test_the_blocks_that_no_query_sees_are_left_out(prompt, window):
  lengths = [[550, 350, 200, 100, 80], [1000, 280, 0, 0, 0]]
  segment = np.stack([np.repeat([1, 2, 3, 4, 0], row) for row in lengths])
  tokens, keys = segment.shape[1], prompt + segment.shape[1]
  token = packing.tokens_of(jnp.asarray(segment))
  kernel = fused_attention.splash_kernel(
      1, tokens, keys, offset=prompt, window=window, softcap=None, packed=True)
  mask, sizes = (kernel.kwargs[x] for x in ('mask_function', 'block_sizes'))
  tall, wide = sizes.block_q, sizes.block_kv

  # A prompt's key is as far from a segment as if it followed the prompt.
  column, key = prompt + np.arange(tokens)[:, None], np.arange(mask.keys)
  far = column - key - (key < prompt) * (
      np.arange(tokens) - token)[..., None]
  own = np.pad(segment, [(0, 0), (prompt, mask.keys - keys)], mode='edge')
  causal = (key <= column) & (far < (window or 10 ** 6))
  sees = causal & (
      (own[:, None] == segment[..., None]) | (key < prompt))
  blocks = np.zeros((2, -(-tokens // tall), 2, mask.keys // wide), bool)
  for row, block in enumerate(sees):
    block = np.pad(block, [(0, -tokens % tall), (0, 0)])
    blocks[row, :, row] = block.reshape(
        -1, tall, mask.keys // wide, wide).any((1, 3))
  wanted = set(map(tuple, np.argwhere(
      blocks.reshape(-1, 2 * mask.keys // wide))))

  def found(info, by_key):
    at = np.argwhere(np.asarray(info.block_mask)[0] > 0)
    other = np.asarray(info.data_next)[0][tuple(at.T)]
    return set(zip(other, at[:, 1]) if by_key else zip(at[:, 0], other))

  fwd, dq, dkv = mask.of_rows(kernel, token).tree_flatten()[0]
  assert found(fwd, False) == found(dq, False) == found(dkv, True) == wanted
  assert len(wanted) < 2 * np.sum(kernel.fwd_mask_info.block_mask > 0)
  # In the order of the grid no other block is copied from memory.
  for info, by_key in ((fwd, False), (dq, False), (dkv, True)):
    other = np.asarray(info.data_next)[0]
    copied = np.count_nonzero(np.diff((other.T if by_key else other).ravel()))
    assert copied <= len(wanted) + len(other.T if by_key else other)


def test_the_mask_is_lowered_for_tpus():
  kernel = fused_attention.splash_kernel(
      2, 256, 384, offset=128, window=60, softcap=None, packed=True)
  array = lambda dtype, *shape: jax.ShapeDtypeStruct((3, *shape), dtype)
  q, k = (array(jnp.bfloat16, length, 2, 64) for length in (256, 384))
  visible, token = array(bool, 384), array(jnp.int32, 256)
  loss = lambda *args: jnp.sum(
      fused_attention.splash(kernel, *args).astype(jnp.float32))
  text = jax.jit(jax.grad(loss, (0, 1, 2))).trace(
      q, k, k, visible, token).lower(lowering_platforms=('tpu',)).as_text()
  # Once for all rows: forward, the gradients of queries, and of keys.
  assert text.count('custom_call @tpu_custom_call') == 3
  assert 'while' not in text
