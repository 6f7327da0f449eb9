"""Causal attention of whole rows in one fused kernel, where a device has one.

Nothing of size [T, S] is written to memory, forward or backward
(FlashAttention, Dao et al., arXiv 2205.14135). On TPUs the kernel is JAX's
splash attention, which leaves out blocks of keys that no query of a block sees;
on GPUs cuDNN's. On CPUs, and for the few queries of a decoding step, there is
kernels/attention.py. `choose` says which of them is used.

A row here is one sequence: a response attends to a copy of its prompt's keys,
next to its own. Query t is in column `offset + t` of the keys, and sees the
keys up to its own column, and within its window if there is one. Rows of
several sequences have the mask of kernels/splash_segments.py.
"""

import functools

import jax
import jax.numpy as jnp

from r1jax.kernels import packing
from r1jax.kernels import padding
from r1jax.kernels import splash_segments
from r1jax.types import Array

_LANES = 128  # of a TPU's registers, which a block's size is a multiple of
_BLOCKS = (512, 256, _LANES)  # queries, or keys, of a block
# What cuDNN's kernel computes with (jax._src.cudnn.fused_attention_stablehlo),
# and the first GPUs that have it.
_CUDNN_DTYPES, _CUDNN_HEAD, _AMPERE = ('bfloat16', 'float16'), 128, 8.


def choose(device: jax.Device, dtype: str, head_size: int, *,
           softcap: float | None = None) -> str:
  """The kernel for a device: splash, cudnn or xla.

  cuDNN's computes in half precision, with heads of 8 to 128, in steps of 8,
  without a soft cap, on NVIDIA's GPUs since Ampere; what it does not compute is
  left to XLA.
  """
  if device.platform == 'tpu':
    return 'splash'
  if (device.platform == 'gpu' and _capability(device) >= _AMPERE
      and dtype in _CUDNN_DTYPES and head_size <= _CUDNN_HEAD
      and head_size % 8 == 0 and not softcap):
    return 'cudnn'
  return 'xla'


def _capability(device: jax.Device) -> float:
  """The compute capability of a GPU; 0 of one that is not NVIDIA's."""
  said = device.compute_capability  # 9.0, or gfx942
  return float(said) if said[:1].isdigit() else 0.


def _padded(length: int, shards: int = 1) -> tuple[int, int]:
  """A length in whole blocks of every shard, and the size of a block.

  A block is the largest that pads a length by an eighth at most.
  """
  part = -(-length // shards)
  block = next((size for size in _BLOCKS if -part % size <= part // 8), _LANES)
  return (part + -part % block) * shards, block


def _lengths(queries: int, keys: int, shards: int
             ) -> tuple[tuple[int, int], tuple[int, int]]:
  """Those of queries and keys as they are padded, with their blocks.

  A padded query has a key of its column, too: each sees at least one.
  """
  padded = _padded(queries, shards)
  return padded, _padded(keys + padded[0] - queries)


def splash_kernel(heads: int, queries: int, keys: int, *, offset: int,
                  window: int | None, softcap: float | None,
                  packed: bool = False, head_shards: int = 1,
                  query_shards: int = 1, interpret: bool = False):
  """The splash kernel of a shape: a tree of arrays, callable on one row.

  The arrays say which blocks of keys each block of queries sees. Where heads or
  queries are split over devices, each needs its part of them.

  Args:
    heads: H, of all devices.
    queries, keys: T and S, of all devices.
    offset, window, softcap: of the attention.
    packed: rows have several segments.
    head_shards, query_shards: parts that heads and queries are split into.
    interpret: computes as plain JAX operations, on a machine without TPU.
  """
  # Imported where it is used: Pallas takes half a second.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
      splash_attention_kernel as kernels, splash_attention_mask as masks)
  (queries, of_queries), (keys, of_keys) = _lengths(queries, keys, query_shards)
  mask = (masks.CausalMask((queries, keys), offset=offset)
          if window is None or packed else
          masks.LocalMask((queries, keys), (window - 1, 0), offset=offset))
  sizes = kernels.BlockSizes(
      block_q=of_queries, block_kv=of_keys, block_q_dkv=of_queries,
      block_kv_dkv=of_keys, block_q_dq=of_queries, block_kv_dq=of_keys)
  with jax.ensure_compile_time_eval():
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads), block_sizes=sizes,
        attn_logits_soft_cap=softcap, head_shards=head_shards,
        q_seq_shards=query_shards, interpret=interpret)
  if not packed:
    return kernel
  infos, settings = kernel.tree_flatten()
  return kernel.tree_unflatten(settings | {
      'mask_function': splash_segments.Mask(offset, keys, window)}, infos)


def splash(kernel, q_NTHh: Array, k_NSKh: Array, v_NSKh: Array,
           visible_NS: Array | None, token_NT: Array | None) -> Array:
  """Attention of queries, already scaled, by a `splash_kernel`, [N, T, H, h].

  Args:
    kernel: of all rows.
    q_NTHh, k_NSKh, v_NSKh: of the kernel's lengths, padded: see `pad`.
    visible_NS: bool, keys that may be seen; None: all.
    token_NT: of packed rows, the place of each query in its segment, from 0.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import (
      splash_attention_kernel as kernels)
  ids = None if visible_NS is None else kernels.SegmentIds(
      q=jnp.ones(q_NTHh.shape[:2], jnp.int32), kv=visible_NS.astype(jnp.int32))
  if token_NT is None:
    q, k, v = (x.swapaxes(1, 2) for x in (q_NTHh, k_NSKh, v_NSKh))
    out = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=ids))(
        q, k, v, ids)
    return out.swapaxes(1, 2).astype(q_NTHh.dtype)
  kernel = kernel.kwargs['mask_function'].of_rows(kernel, token_NT)
  join = lambda x: x.reshape(-1, *x.shape[2:])
  q, k, v = (join(x).swapaxes(0, 1) for x in (q_NTHh, k_NSKh, v_NSKh))
  out = kernel(q, k, v, segment_ids=jax.tree.map(join, ids)).swapaxes(0, 1)
  return out.reshape(*q_NTHh.shape[:3], -1).astype(q_NTHh.dtype)


def pad(q_NTHh: Array, k_NSKh: Array, v_NSKh: Array,
        visible_NS: Array | None, segment_NT: Array | None,
        query_shards: int = 1):
  """The arguments of `splash` after the kernel, padded to whole blocks.

  Padding has segment 0.
  """
  (queries, _), (keys, _) = _lengths(
      q_NTHh.shape[1], k_NSKh.shape[1], query_shards)
  of_queries = lambda x: padding.columns(x, queries)
  of_keys = lambda x: padding.columns(x, keys)
  return (of_queries(q_NTHh), of_keys(k_NSKh), of_keys(v_NSKh),
          None if visible_NS is None else of_keys(visible_NS),
          None if segment_NT is None else packing.tokens_of(
              of_queries(segment_NT)))


def cudnn(q_NTHh: Array, k_NSKh: Array, v_NSKh: Array,
          start_N: Array | None, *, window: int | None,
          implementation: str = 'cudnn') -> Array:
  """Attention of queries, already scaled, by cuDNN's kernel, [N, T, H, h].

  Args:
    q_NTHh: queries; they are those of the last T of the S columns.
    k_NSKh, v_NSKh: keys and values.
    start_N: the columns before each row's first key; None: 0.
    window: keys that a query sees.
    implementation: of jax.nn.dot_product_attention.
  """
  # The kernel's causal mask compares columns, and it takes no keys to leave out
  # at the beginning. So queries get columns of their own before the first of
  # theirs, and each row is shifted to begin with its first key; what is
  # shifted to its end comes after all its queries.
  before = k_NSKh.shape[1] - q_NTHh.shape[1]
  q = jnp.pad(q_NTHh, ((0, 0), (before, 0), (0, 0), (0, 0)))
  # Its backward pass takes an even number of columns.
  q, k_NSKh, v_NSKh = (padding.columns(x, 2) for x in (q, k_NSKh, v_NSKh))
  shift = jax.vmap(functools.partial(jnp.roll, axis=0))
  if start_N is not None:
    q, k_NSKh, v_NSKh = (shift(x, -start_N) for x in (q, k_NSKh, v_NSKh))
  out = jax.nn.dot_product_attention(
      q, k_NSKh, v_NSKh, is_causal=True, scale=1.,
      local_window_size=window and (window - 1, 0),
      implementation=implementation)
  if start_N is not None:
    out = shift(out, start_N)
  return out[:, before:before + q_NTHh.shape[1]]
