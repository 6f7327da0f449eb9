"""GGUF files (llama.cpp) of Llama and Gemma 3, read as Hugging Face models.

The changes of llama.cpp's conversion are undone: tensor names, the order of
Llama's rotary entries, the 1 that is added to Gemma's norms. Quantised weights
are read as float32 (package `gguf`).
"""

import functools
import math
import pathlib
import re
from typing import Any

import numpy as np

from r1jax.data.vocabs import gguf_header
from r1jax.models import architecture
from r1jax.models import rotary
from r1jax.models import tensor_files

_ARCHITECTURES = {'llama': 'LlamaForCausalLM', 'gemma3': 'Gemma3ForCausalLM'}

# The key of the metadata, after the architecture's name, and of config.json.
_KEYS = {
    'block_count': 'num_hidden_layers',
    'context_length': 'max_position_embeddings',
    'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size',
    'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads',
    'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
    'attention.sliding_window': 'sliding_window',
    'rope.freq_base': 'rope_theta',
}

_NAMES = {
    'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm',
    'output': 'lm_head',
}
_BLOCK = {
    'attn_norm': 'input_layernorm', 'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj', 'ffn_gate': 'mlp.gate_proj',
    'ffn_up': 'mlp.up_proj', 'ffn_down': 'mlp.down_proj',
}
_LLAMA = {'ffn_norm': 'post_attention_layernorm'}
_GEMMA = {
    'attn_q_norm': 'self_attn.q_norm', 'attn_k_norm': 'self_attn.k_norm',
    'post_attention_norm': 'post_attention_layernorm',
    'ffn_norm': 'pre_feedforward_layernorm',
    'post_ffw_norm': 'post_feedforward_layernorm',
}


@functools.lru_cache(maxsize=2)
def _read_header(path: str) -> gguf_header.Header:
  if not pathlib.Path(path).is_file():
    raise tensor_files.file_error(path, 'there is no such file')
  try:
    return gguf_header.read_header(path)
  except ValueError as problem:
    raise tensor_files.file_error(
        path, f'not a GGUF file: {problem}') from problem


def read_fields(path: str) -> dict[str, Any]:
  """The config.json that describes the file's model.

  Raises:
    ConfigError: not a GGUF file, or an unsupported architecture.
  """
  metadata, stored = _read_header(str(path))
  kind = metadata.get('general.architecture')
  if kind not in _ARCHITECTURES:
    raise tensor_files.file_error(
        path, f'expected general.architecture to be '
        f'{" or ".join(_ARCHITECTURES)}, received {kind!r}')
  fields = {hf_key: metadata[f'{kind}.{key}'] for key, hf_key in _KEYS.items()
            if f'{kind}.{key}' in metadata}
  if 'token_embd.weight' not in stored:
    raise tensor_files.file_error(
        path, 'the tensor token_embd.weight is missing')
  fields |= {
      'architectures': [_ARCHITECTURES[kind]],
      'model_type': {'gemma3': 'gemma3_text'}.get(kind, kind),
      'tie_word_embeddings': 'output.weight' not in stored,
      'vocab_size': stored['token_embd.weight'].shape[0],
      'head_dim': _head_size(metadata, kind),
  }
  scaling = metadata.get(f'{kind}.rope.scaling.type', 'none')
  if scaling == 'linear':
    fields['rope_scaling'] = {
        'rope_type': 'linear',
        'factor': metadata[f'{kind}.rope.scaling.factor']}
  elif scaling != 'none':
    raise tensor_files.file_error(
        path, f'expected {kind}.rope.scaling.type to be linear or none, '
        f'received {scaling!r}')
  if 'rope_freqs.weight' in stored:
    fields['rope_scaling'] = _llama3_scaling(path, fields['rope_theta'])
  if kind == 'gemma3':
    # Not in the file. It is the head size, except in the largest model.
    large = fields['num_hidden_layers'] == 62
    fields['query_pre_attn_scalar'] = (
        fields['hidden_size'] // fields['num_attention_heads'] if large
        else fields['head_dim'])
  return fields


def _head_size(metadata: dict[str, Any], kind: str) -> int:
  size = metadata.get(f'{kind}.attention.key_length')
  return size or metadata.get(f'{kind}.embedding_length', 0) // metadata.get(
      f'{kind}.attention.head_count', 1)


def _llama3_scaling(path: str, theta: float) -> dict[str, Any]:
  """Llama 3's rope_scaling, from the divisor of each frequency in the file."""
  divisor = open_tensors(path).read('rope_freqs.weight')
  scaling = architecture.RopeScaling('llama3', float(divisor.max()), 8192)
  size = 2 * divisor.size
  expected = rotary.frequencies(size, theta) / rotary.frequencies(
      size, theta, scaling)
  if not np.allclose(divisor, expected, rtol=1e-4):
    raise tensor_files.file_error(
        path, 'rope_freqs.weight is not the scaling of Llama 3, the only one '
        'supported')
  return {'rope_type': 'llama3', 'factor': scaling.factor,
          'low_freq_factor': scaling.low_freq,
          'high_freq_factor': scaling.high_freq,
          'original_max_position_embeddings': scaling.original_len}


def open_tensors(path: str) -> tensor_files.Tensors:
  """The file's tensors by their Hugging Face names, float32 when read."""
  import gguf  # pylint: disable=g-import-not-at-top
  metadata, stored = _read_header(str(path))
  kind = metadata['general.architecture']
  by_name = {_hf_name(kind, name): tensor for name, tensor in stored.items()}
  half = metadata.get(f'{kind}.rope.dimension_count',
                      _head_size(metadata, kind)) // 2
  data = np.memmap(path, np.uint8, 'r')

  def read(name):
    size, number, begin = by_name[name]
    try:
      quantized = gguf.GGMLQuantizationType(number)
      rows = gguf.quant_shape_to_byte_shape(size, quantized)
      weight = gguf.dequantize(
          data[begin:begin + math.prod(rows)].reshape(rows), quantized)
    except (ValueError, NotImplementedError) as problem:
      raise tensor_files.file_error(
          path, f'{name} is truncated, or quantised in a way that the package '
          f'gguf does not know: {problem}') from problem
    weight = weight.reshape(size)
    if kind == 'gemma3' and name.endswith('norm.weight'):
      return weight - 1
    if kind == 'llama' and re.search(r'\.[qk]_proj\.', name):
      pairs = weight.reshape(-1, half, 2, weight.shape[-1])
      return pairs.swapaxes(1, 2).reshape(weight.shape)
    return weight

  return tensor_files.Tensors(
      {name: tensor.shape for name, tensor in by_name.items()
       if name != 'rope_freqs.weight'}, read)


def _hf_name(kind: str, name: str) -> str:
  """A tensor's name in Hugging Face models; `name` itself if it has none."""
  match = re.fullmatch(r'(?:blk\.(\d+)\.)?(\w+)\.weight', name)
  if not match:
    return name
  layer, part = match.groups()
  if layer is None:
    return f'{_NAMES[part]}.weight' if part in _NAMES else name
  block = _BLOCK | (_GEMMA if kind == 'gemma3' else _LLAMA)
  return f'model.layers.{layer}.{block[part]}.weight' if part in block else name
