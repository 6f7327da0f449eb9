"""Tensors of GGUF files (llama.cpp) of Llama and Gemma 3, by the names of HF.

The changes of llama.cpp's conversion are undone: tensor names, the order of
Llama's rotary entries, the 1 that is added to Gemma's norms. Quantised weights
are read as float32 (package `gguf`).
"""

import math
import re

import numpy as np

from r1jax.models import gguf_config
from r1jax.models import tensor_files

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


def open_tensors(path: str) -> tensor_files.Tensors:
  """The file's tensors by their Hugging Face names, float32 when read."""
  import gguf  # pylint: disable=g-import-not-at-top
  metadata, stored = gguf_config.header(str(path))[:2]
  kind = metadata['general.architecture']
  half = gguf_config.read_fields(path)['head_dim'] // 2
  by_name = {_hf_name(kind, name): tensor for name, tensor in stored.items()
             if name != gguf_config.FREQUENCIES}
  if len(by_name) + (gguf_config.FREQUENCIES in stored) != len(stored):
    raise tensor_files.file_error(path, 'has a tensor under two names')
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
          path, f'{name} is stored in a way that the package gguf does not '
          f'read: {problem}') from problem
    weight = weight.reshape(size)
    if kind == 'gemma3' and name.endswith('norm.weight'):
      return weight - 1
    if kind == 'llama' and re.search(r'\.[qk]_proj\.', name):
      pairs = weight.reshape(-1, half, 2, weight.shape[-1])
      return pairs.swapaxes(1, 2).reshape(weight.shape)
    return weight

  return tensor_files.Tensors(
      {name: tensor.shape for name, tensor in by_name.items()}, read,
      {name: _dtype(tensor.kind) for name, tensor in by_name.items()})


def _dtype(number: int) -> str:
  """The name of a type of tensors; of floats, of counts or of a quantisation.
  """
  import gguf  # pylint: disable=g-import-not-at-top
  try:
    return gguf.GGMLQuantizationType(number).name
  except ValueError:
    return f'unknown type {number}'


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
