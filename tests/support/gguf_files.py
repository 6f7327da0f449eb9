"""GGUF files of the tiny released models, as llama.cpp's conversion has them.
"""

from typing import Any

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
