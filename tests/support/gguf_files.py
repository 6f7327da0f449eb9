"""GGUF files of the tiny released models, as llama.cpp's conversion has them.
"""

from collections.abc import Iterator
import random
from typing import Any
import zlib

import gguf
import numpy as np

import released
from r1jax.models import architecture

KINDS = {'llama': 'llama', 'gemma3': 'gemma3_text'}  # the fixture of each


def header(kind: str, config: architecture.Config | None = None
           ) -> dict[str, Any]:
  """The metadata of a fixture's model, or of another like it."""
  config = config or released.fixture(KINDS[kind])[0].config
  values = {
      'block_count': config.layers, 'context_length': config.max_len,
      'embedding_length': config.width, 'feed_forward_length': config.mlp,
      'attention.head_count': config.heads,
      'attention.head_count_kv': config.kv_heads,
      'attention.key_length': config.head_size,
      'attention.value_length': config.head_size,
      'rope.dimension_count': config.head_size, 'vocab_size': config.vocab,
      'attention.layer_norm_rms_epsilon': config.rms_eps,
      'rope.freq_base': config.rope_theta}
  if config.window:
    values |= {'attention.sliding_window': config.window,
               'attention.sliding_window_pattern': config.global_every,
               'rope.freq_base_swa': config.rope_theta_local}
  if config.rope_scaling:
    values |= {'rope.scaling.type': config.rope_scaling.kind,
               'rope.scaling.factor': config.rope_scaling.factor}
  return {'general.architecture': kind} | {
      f'{kind}.{key}': value for key, value in values.items()}


def tensors(kind: str) -> dict[str, np.ndarray]:
  """The tensors of a fixture's model by their names in a GGUF file."""
  config = released.fixture(KINDS[kind])[0].config
  names = gguf.get_tensor_name_map(
      gguf.MODEL_ARCH[kind.upper()], config.layers)
  found = {}
  for name, x in released.tensors(released.FOLDER / KINDS[kind]).items():
    x = np.asarray(x, np.float32)
    if kind == 'llama' and ('q_proj' in name or 'k_proj' in name):
      x = x.reshape(-1, 2, config.head_size // 2, x.shape[1]).swapaxes(
          1, 2).reshape(x.shape)
    if kind == 'gemma3' and name.endswith('norm.weight'):
      x = x + 1
    found[names.get_name(name, ('.weight',))] = np.ascontiguousarray(x)
  return found


# Models for transformers' reader. Of Gemma it takes every sixth layer as
# global, 10,000 as the local theta, and 1/16 as the scale of queries, always.
_OF = dict(vocab=96, width=32, mlp=40, max_len=128, rms_eps=1e-3)
_PLAIN = {
    'llama': architecture.Config(
        layers=2, heads=4, kv_heads=2, head_size=8, rope_theta=500., **_OF),
    'gemma3': architecture.Config(
        layers=6, heads=2, kv_heads=1, head_size=256, rope_theta=5000.,
        window=6, rope_theta_local=10_000., **_OF)}
_SIZE = 'attention.key_length'
_SIZES = (_SIZE, 'attention.value_length', 'rope.dimension_count')
_NOT_THEIRS = (*_SIZES[1:], 'attention.sliding_window_pattern',
               'rope.freq_base_swa')


def changes(kind: str, count: int = 30
           ) -> Iterator[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
  """(what changes, header, tensors): keys that transformers reads, too.

  The tensors are those of the changed header, as far as it gives sizes.
  """
  rng, plain, seen = random.Random(0), header(kind, _PLAIN[kind]), set()
  plain['tokenizer.ggml.tokens'] = [f'{i}' for i in range(_OF['vocab'])]
  keys = [key for key in plain if key.startswith(f'{kind}.')
          and key.partition('.')[2] not in _NOT_THEIRS
          and (kind, key) != ('gemma3', f'gemma3.{_SIZE}')]
  while len(seen) < count:
    key = rng.choice(keys)
    old = plain[key]
    value = rng.choice([2 * old, 3 * old, old + 1, old // 2] * 3 + [
        .1, 7, 0, -1, None, [old] * _PLAIN[kind].layers, str(old), True])
    changed = {key: value}
    if key == f'llama.{_SIZE}':
      changed = {f'llama.{name}': value for name in _SIZES}
    if f'{key}={value}' not in seen:
      seen.add(f'{key}={value}')
      values = plain | changed
      yield f'{key} = {value!r}', values, _random(kind, plain, values)


def _random(kind: str, plain: dict[str, Any], values: dict[str, Any]
           ) -> dict[str, np.ndarray]:
  """Tensors of the sizes of a header; of a plain one's where it has none."""
  def size(key):
    value = values[f'{kind}.{key}']
    return value if type(value) is int and 0 < value < 1000 else (
        plain[f'{kind}.{key}'])

  width, mlp = size('embedding_length'), size('feed_forward_length')
  head = size(_SIZE)
  q, k = (head * size(f'attention.{name}')
          for name in ('head_count', 'head_count_kv'))
  block = dict(
      attn_norm=(width,), attn_q=(q, width), attn_k=(k, width),
      attn_v=(k, width), attn_output=(width, q), ffn_norm=(width,),
      ffn_gate=(mlp, width), ffn_up=(mlp, width), ffn_down=(width, mlp))
  if kind == 'gemma3':
    block |= dict(attn_q_norm=(head,), attn_k_norm=(head,),
                  post_attention_norm=(width,), post_ffw_norm=(width,))
  shapes = {'token_embd': (_OF['vocab'], width), 'output_norm': (width,)} | {
      f'blk.{layer}.{name}': shape for layer in range(size('block_count'))
      for name, shape in block.items()}
  found = {}
  for name, shape in shapes.items():
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    found[f'{name}.weight'] = np.float32(
        1 + .3 * noise if 'norm' in name else 1.2 * shape[-1] ** -.5 * noise)
  return found


def write(path, values: dict[str, Any],
          arrays: dict[str, np.ndarray]) -> str:
  """Writes a file; None leaves a key, or a tensor, out."""
  writer = gguf.GGUFWriter(path, values['general.architecture'])
  for key, value in values.items():
    if key == 'general.architecture' or value is None:
      continue
    kind = _kind(value)
    if kind == gguf.GGUFValueType.ARRAY:
      writer.add_key_value(key, value, kind, _kind(value[0]))
    else:
      writer.add_key_value(key, value, kind)
  for name, x in arrays.items():
    if x is not None:
      writer.add_tensor(name, np.ascontiguousarray(x))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return str(path)


def _kind(value: Any) -> gguf.GGUFValueType:
  types = gguf.GGUFValueType
  if isinstance(value, int) and not isinstance(value, bool):
    return types.UINT32 if 0 <= value < 2**32 else types.INT64
  return {bool: types.BOOL, float: types.FLOAT32, str: types.STRING,
          list: types.ARRAY}[type(value)]
