"""GGUF files (llama.cpp's) of Llama and Gemma 3, as Hugging Face has them.

What the file's conversion changed is undone: other names, Llama's rotating
entries in pairs, Gemma's norms with their 1 added; quantised weights become
float32 (package `gguf`).
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

# Their key of the metadata, behind the architecture's name, and config.json's.
_KEYS = {
    'block_count': 'num_hidden_layers',
    'context_length': 'max_position_embeddings',
    'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size',
    'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads',
    'attention.key_length': 'head_dim',
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
def _header(path: str) -> gguf_header.Header:
  if not pathlib.Path(path).is_file():
    raise tensor_files.damaged(path, 'there is no such file')
  try:
    return gguf_header.read_header(path)
  except ValueError as problem:
    raise tensor_files.damaged(path, f'is no GGUF file: {problem}') from problem


def fields(path: str) -> dict[str, Any]:
  """The file's model as a config.json.

  Raises:
    ConfigError: another architecture, or a file that is no GGUF file.
  """
  metadata, stored = _header(str(path))
  kind = metadata.get('general.architecture')
  if kind not in _ARCHITECTURES:
    raise tensor_files.damaged(
        path, f'expected general.architecture to be '
        f'{" or ".join(_ARCHITECTURES)}, received {kind!r}')
  found = {theirs: metadata[f'{kind}.{key}'] for key, theirs in _KEYS.items()
           if f'{kind}.{key}' in metadata}
  if 'token_embd.weight' not in stored:
    raise tensor_files.damaged(path, 'the tensor token_embd.weight is missing')
  found |= {
      'architectures': [_ARCHITECTURES[kind]],
      'model_type': {'gemma3': 'gemma3_text'}.get(kind, kind),
      'tie_word_embeddings': 'output.weight' not in stored,
      'vocab_size': stored['token_embd.weight'].shape[0],
  }
  found['head_dim'] = _head_size(metadata, kind)
  scaling = metadata.get(f'{kind}.rope.scaling.type', 'none')
  if scaling == 'linear':
    found['rope_scaling'] = {
        'rope_type': 'linear',
        'factor': metadata[f'{kind}.rope.scaling.factor']}
  elif scaling != 'none':
    raise tensor_files.damaged(
        path, f'expected {kind}.rope.scaling.type to be linear or none, '
        f'received {scaling!r}')
  if 'rope_freqs.weight' in stored:
    found['rope_scaling'] = _llama3(path, found)
  if kind == 'gemma3':
    # The files do not say; the largest model alone has another than its heads.
    large = found['num_hidden_layers'] == 62
    found['query_pre_attn_scalar'] = (
        found['hidden_size'] // found['num_attention_heads'] if large
        else found['head_dim'])
  return found


def _head_size(metadata: dict[str, Any], kind: str) -> int:
  found = metadata.get(f'{kind}.attention.key_length')
  return found or metadata.get(f'{kind}.embedding_length', 0) // metadata.get(
      f'{kind}.attention.head_count', 1)


def _llama3(path: str, found: dict[str, Any]) -> dict[str, Any]:
  """Llama 3's scaling, of which the file has what each frequency is over."""
  divisor = tensors(path).read('rope_freqs.weight')
  scaling = architecture.RopeScaling('llama3', float(divisor.max()), 8192)
  theta, size = found['rope_theta'], 2 * divisor.size
  expected = rotary.frequencies(size, theta) / rotary.frequencies(
      size, theta, scaling)
  if not np.allclose(divisor, expected, rtol=1e-4):
    raise tensor_files.damaged(path, 'rope_freqs.weight is not the scaling of '
                             'Llama 3, the only one supported')
  return {'rope_type': 'llama3', 'factor': scaling.factor,
          'low_freq_factor': scaling.low_freq,
          'high_freq_factor': scaling.high_freq,
          'original_max_position_embeddings': scaling.original_len}


def tensors(path: str) -> tensor_files.Tensors:
  """The file's tensors under their Hugging Face names, float32 when read."""
  import gguf  # pylint: disable=g-import-not-at-top
  metadata, stored = _header(str(path))
  kind = metadata['general.architecture']
  named = {_name(kind, name): tensor for name, tensor in stored.items()}
  half = metadata.get(f'{kind}.rope.dimension_count',
                      _head_size(metadata, kind)) // 2
  data = np.memmap(path, np.uint8, 'r')

  def read(name):
    size, number, begin = named[name]
    try:
      quantized = gguf.GGMLQuantizationType(number)
      rows = gguf.quant_shape_to_byte_shape(size, quantized)
      weight = gguf.dequantize(
          data[begin:begin + math.prod(rows)].reshape(rows), quantized)
    except (ValueError, NotImplementedError) as problem:
      raise tensor_files.damaged(
          path, f'{name} is cut short or quantised in a way that the package '
          f'gguf does not know: {problem}') from problem
    weight = weight.reshape(size)
    if kind == 'gemma3' and name.endswith('norm.weight'):
      return weight - 1
    if kind == 'llama' and re.search(r'\.[qk]_proj\.', name):
      pairs = weight.reshape(-1, half, 2, weight.shape[-1])
      return pairs.swapaxes(1, 2).reshape(weight.shape)
    return weight

  return tensor_files.Tensors(
      {name: tensor.shape for name, tensor in named.items()
       if name != 'rope_freqs.weight'}, read)


def _name(kind: str, name: str) -> str:
  """Hugging Face's name of a tensor; its own where there is none."""
  found = re.fullmatch(r'(?:blk\.(\d+)\.)?(\w+)\.weight', name)
  if not found:
    return name
  layer, part = found.groups()
  if layer is None:
    return f'{_NAMES[part]}.weight' if part in _NAMES else name
  block = _BLOCK | (_GEMMA if kind == 'gemma3' else _LLAMA)
  return f'model.layers.{layer}.{block[part]}.weight' if part in block else name
