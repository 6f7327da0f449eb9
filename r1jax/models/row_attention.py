"""Attention of whole rows, without a cache: which kernel, and on which device.

On a mesh each device attends for its rows and its heads. If the rules split
the length, it attends for its part of the queries to all keys, which are
gathered: with grouped-query attention they are much smaller than the queries,
and all-gather is one collective a layer where a ring takes one a device
(Llama 3, arXiv 2407.21783, sec. 3.3.2).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax import errors
from r1jax.kernels import fused_attention
from r1jax.kernels import padding
from r1jax.kernels import splash_segments
from r1jax.models import architecture
from r1jax.models import attention
from r1jax.models import layers
from r1jax.parallel import sharding
from r1jax.types import Array

Place = sharding.Placement | None


def attend(config: architecture.Config, place: Place,
           layout: attention.Layout, layer: attention.LayerInputs, q: Array,
           k: Array, v: Array) -> Array:
  """Attention without a past: [B, T, H, h] queries, [B, T, K, h] keys."""
  if layout.responses is None:
    return _attend_rows(config, place, layout, layer, q, k, v)
  (q, q_NTHh), (k, k_NTKh), (v, v_NTKh) = (
      attention.split_responses(layout, x) for x in (q, k, v))
  out = _attend_rows(config, place, layout, layer, q, k, v)
  out_NTHh = _attend_rows(
      config, place, layout.responses, layer._replace(prompt=(k, v)), q_NTHh,
      k_NTKh, v_NTKh)
  out = jnp.concatenate(
      [out, out_NTHh.reshape(out.shape[0], -1, *out.shape[2:])], 1)
  return layers.pad_length(place, out)


def _attend_rows(config: architecture.Config, place: Place,
                 layout: attention.Layout, layer: attention.LayerInputs,
                 q: Array, k: Array, v: Array) -> Array:
  """Attention of rows to themselves, and to a prompt [B, P, K, h] before."""
  split = _Split(place, len(q))
  chosen = kernel(config, place, packed=layout.segment is not None,
                  parents=layout.parent is not None)
  if chosen != 'xla':
    run = _by_splash if chosen == 'splash' else _by_cudnn
    return run(config, place, split, layout, layer, q, k, v)
  if split.length:
    return _by_length(config, place, layout, layer, q, k, v)
  return attention.attend(config, layout, _in_parts(layer), q,
                          *attention.to_parts(k, v))


def kernel(config: architecture.Config, place: Place, *, packed: bool = False,
           parents: bool = False) -> str:
  """The kernel that attends to whole rows: splash, cudnn or xla.

  Args:
    config: of the model.
    place: of the model.
    packed: rows have several segments.
    parents: a segment's tokens see another segment as well.
  """
  named = config.attention_kernel or fused_attention.choose(
      sharding.device(place), config.dtype, config.head_size,
      softcap=config.softcap_attention)
  # cuDNN's kernel knows neither segments nor which queries a device has.
  cannot = parents or named == 'cudnn' and (packed or _Split(place, 0).length)
  return 'xla' if cannot else named


def _in_parts(layer: attention.LayerInputs) -> attention.LayerInputs:
  """Its prompt in the layouts of kernels/attention.py, if it has one."""
  return layer._replace(
      prompt=layer.prompt and attention.to_parts(*layer.prompt))


class _Split:
  """The mesh axes that an attention's rows, length and heads are split over.

  Rows that do not divide over their axes, as those of few prompts, are whole
  on every device.
  """

  def __init__(self, place: Place, rows: int):
    self.batch = self.length = self.heads = self.kv_heads = None
    self.parts = lambda axes: 1
    if place is not None:
      self.batch, self.length, self.heads = place.partition_spec(
          ('batch', 'length', 'heads'))
      self.kv_heads, = place.partition_spec(('kv_heads',))
      self.parts = place.size
    if rows % self.parts(self.batch):
      self.batch = None

  def queries(self) -> PartitionSpec:
    return PartitionSpec(self.batch, self.length, self.heads, None)

  def keys(self) -> PartitionSpec:
    return PartitionSpec(self.batch, None, self.heads, None)


class _Keys(NamedTuple):
  """The keys and values of whole rows, a prompt's before a response's own."""
  k: Array  # [N, S, K, h]
  v: Array
  first: Array | None  # i32[N], the column of a row's first key; None: 0
  visible: Array | None  # bool[N, S], false on a prompt's padding; None: all


def _join_prompt(layout: attention.Layout, layer: attention.LayerInputs,
                 k: Array, v: Array, align: bool) -> _Keys:
  """Keys and values after those of their prompt; each row has its own copy.

  `align` moves a prompt's padding before it, so that columns are as far from
  each other as positions.
  """
  if layer.prompt is None:
    return _Keys(k, v, None, None)
  rows, length = k.shape[:2]
  prompts, columns = layer.prompt[0].shape[:2]
  own = lambda x: jnp.repeat(x, rows // prompts, 0)
  empty = columns - layout.prompt_length
  prompt_k, prompt_v = layer.prompt
  column = jnp.arange(columns)
  if align:
    shift = jax.vmap(functools.partial(jnp.roll, axis=0))
    prompt_k, prompt_v = shift(prompt_k, empty), shift(prompt_v, empty)
    visible = column >= empty[:, None]
  else:
    visible = column < layout.prompt_length[:, None]
  join = lambda x, y: jnp.concatenate([own(x), y], 1)
  return _Keys(join(prompt_k, k), join(prompt_v, v), own(empty),
               join(visible, jnp.ones((rows, length), bool)))


def _share_heads(split: _Split, q: Array, x: Array) -> Array:
  """Keys or values for each query head, where devices have other heads."""
  if split.heads == split.kv_heads:
    return x
  return jnp.repeat(x, q.shape[2] // x.shape[2], 2)


def _windows(config: architecture.Config) -> list[int | None]:
  """The windows of a model's layers: of global ones, and of local ones."""
  return [None] if config.window is None else [None, config.window]


def _either(local: Array, runs: list, *args) -> Array:
  """The result of the first of `runs`, or of the second in a local layer."""
  return runs[0](*args) if len(runs) == 1 else jax.lax.cond(
      local, runs[1], runs[0], *args)


def _by_splash(config: architecture.Config, place: Place, split: _Split,
               layout: attention.Layout, layer: attention.LayerInputs,
               q: Array, k: Array, v: Array) -> Array:
  """Attention by kernels/fused_attention.splash on every device."""
  length, packed = q.shape[1], layout.segment is not None
  if packed and length > splash_segments.MAX_TOKENS:
    raise errors.ConfigError('model.attention_kernel', (
        f'splash takes packed rows of {splash_segments.MAX_TOKENS:,} tokens at '
        f"most, these have {length:,}; expected shorter rows or 'xla'"))
  keys = _join_prompt(layout, layer, k, v, align=config.window is not None)
  kernels = [
      fused_attention.splash_kernel(
          q.shape[2], length, keys.k.shape[1],
          offset=keys.k.shape[1] - length, window=window,
          softcap=config.softcap_attention, packed=packed,
          head_shards=split.parts(split.heads),
          query_shards=split.parts(split.length),
          interpret=sharding.device(place).platform != 'tpu')
      for window in _windows(config)]

  def run(kernels, local, *args):
    return _either(local, [functools.partial(fused_attention.splash, kernel)
                           for kernel in kernels], *args)

  padded = fused_attention.pad(
      q, _share_heads(split, q, keys.k), _share_heads(split, q, keys.v),
      keys.visible, layout.segment, split.parts(split.length))
  if place is not None and place.mesh.size > 1:
    by_head = jax.sharding.NamedSharding(
        place.mesh, PartitionSpec(split.heads, split.length))
    run = jax.shard_map(
        run, mesh=place.mesh, in_specs=(
            [kernel.manual_sharding_spec(by_head) for kernel in kernels],
            PartitionSpec(), split.queries(), split.keys(), split.keys(),
            PartitionSpec(split.batch),
            PartitionSpec(split.batch, split.length)),
        out_specs=split.queries(), check_vma=False)
  return run(kernels, layer.local, *padded)[:, :length]


def _by_cudnn(config: architecture.Config, place: Place, split: _Split,
              layout: attention.Layout, layer: attention.LayerInputs,
              q: Array, k: Array, v: Array) -> Array:
  """Attention by kernels/fused_attention.cudnn on every device."""
  keys = _join_prompt(layout, layer, k, v, align=True)

  def run(local, *args):
    return _either(
        local, [functools.partial(fused_attention.cudnn, window=window)
                for window in _windows(config)], *args)

  if place is not None and place.mesh.size > 1:
    run = jax.shard_map(
        run, mesh=place.mesh, in_specs=(
            PartitionSpec(), split.queries(), split.keys(), split.keys(),
            None if keys.first is None else PartitionSpec(split.batch)),
        out_specs=split.queries(), check_vma=False)
  return run(layer.local, q, _share_heads(split, q, keys.k),
             _share_heads(split, q, keys.v), keys.first)


def _by_length(config: architecture.Config, place: sharding.Placement,
               layout: attention.Layout, layer: attention.LayerInputs,
               q: Array, k: Array, v: Array) -> Array:
  """Attention by XLA, each device's part of the queries to all keys."""
  # Rows stay on their devices only if those of their prompts do.
  split = _Split(place, len(layer.prompt[0] if layer.prompt else q))
  share = functools.partial(_share_heads, split, q)
  k, v = share(k), share(v)
  if layer.prompt is not None:
    layer = layer._replace(prompt=tuple(map(share, layer.prompt)))
  layout = layout._replace(table=None, local_table=None)
  length, parts = q.shape[1], split.parts(split.length)
  q = padding.columns(q, parts)
  size = q.shape[1] // parts

  def run(layout, layer, q, k, v):
    begin = jax.lax.axis_index(split.length) * size
    return attention.attend_span(
        config, layout, _in_parts(layer), q, begin, *attention.to_parts(k, v))

  spec = lambda x: split.keys() if x.ndim == 4 else PartitionSpec(
      *[split.batch][:x.ndim])
  args = layout, layer, q, k, v
  specs = jax.tree.map(spec, args)
  out = jax.shard_map(
      run, mesh=place.mesh, in_specs=(*specs[:2], split.queries(), *specs[3:]),
      out_specs=split.queries(), check_vma=False)(*args)
  return out[:, :length]
