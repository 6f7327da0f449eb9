"""The header of a GGUF file (llama.cpp) as the config.json of its model.

Each key of the architecture's section is read, or known to change nothing, or
refused; and what the header says twice must agree. What a key that is left out
stands for is llama.cpp's rule.
"""

from collections.abc import Mapping
import functools
import math
import os
import re
from typing import Any

import numpy as np

from r1jax.data import json_object
from r1jax.data.vocabs import gguf_header
from r1jax.models import architecture
from r1jax.models import file_section
from r1jax.models import rotary
from r1jax.models import tensor_files

ARCHITECTURES = {'llama': 'LlamaForCausalLM', 'gemma3': 'Gemma3ForCausalLM'}
EMBEDDING, FREQUENCIES = 'token_embd.weight', 'rope_freqs.weight'
_SIZES = dict(  # fields of architecture.Config
    layers='block_count', width='embedding_length',
    heads='attention.head_count', mlp='feed_forward_length',
    max_len='context_length', rms_eps='attention.layer_norm_rms_epsilon')
_BY_LAYER = (  # a number, or one for each layer
    'attention.head_count', 'attention.head_count_kv', 'feed_forward_length')

# Keys of the section, and the values of each that change nothing.
_NEUTRAL = {
    'expert_count': (0,), 'expert_used_count': (0,), 'logit_scale': (1.,),
    'embedding_scale': (1.,), 'residual_scale': (1.,), 'pooling_type': (0,),
    'attention.causal': (True,), 'attention.max_alibi_bias': (0.,),
    'attention.clamp_kqv': (0.,), 'use_parallel_residual': (False,),
    'rope.scaling.finetuned': (True, False),
    'rope.scaling.attn_factor': (1.,), 'rope.scaling.yarn_attn_factor': (1.,),
    'rope.scaling.yarn_ext_factor': (1.,),
    'rope.scaling.yarn_log_multiplier': (0.,),
    'tensor_data_layout': ('Meta AI original pth', 'reference'),
}


def header(path: str) -> gguf_header.Header:
  """The header of a file, each part of which is where the file says.

  Raises:
    ConfigError: there is no such file, it is damaged or cut short, or it is not
      a whole model of a known architecture.
  """
  try:
    state = os.stat(path)
    return _header(path, state.st_mtime_ns, state.st_size)
  except FileNotFoundError as problem:
    raise tensor_files.file_error(path, 'there is no such file') from problem
  except OSError as problem:
    raise tensor_files.file_error(
        path, f'cannot be read: {problem.strerror}') from problem


@functools.lru_cache(maxsize=2)
def _header(path: str, changed: int, size: int) -> gguf_header.Header:
  del changed  # only tells an older state of the file from this one
  _check_begin(path)
  try:
    found = gguf_header.read_header(path)
  except ValueError as problem:
    raise tensor_files.file_error(
        path, f'not a GGUF file, or damaged: {problem}') from problem
  values = found.metadata
  top = file_section.Section(values, path)
  kind = top.raw('general.architecture')
  if kind not in list(ARCHITECTURES):
    raise top.refused(
        'general.architecture', ' or '.join(ARCHITECTURES), kind)
  top.fixed('general.type', 'model')
  top.fixed('split.count', 1, 0)
  _check_places(path, found, size)
  return found


def _check_begin(path: str) -> None:
  """Raises if the first bytes say that it is another kind of file."""
  with open(path, 'rb') as file:
    begin = file.read(100)
  try:
    json_object.check_fetched(begin)
  except ValueError as problem:
    raise tensor_files.file_error(path, str(problem)) from problem
  if begin.startswith(b'GGUF\0\0'):  # then the version, as 4 bytes
    raise tensor_files.file_error(
        path, 'is big-endian; convert it to little-endian, as with '
        'gguf-convert-endian of the package gguf')


def _check_places(path: str, found: gguf_header.Header, size: int) -> None:
  """Raises unless tensors stand one behind the other up to the file's end.

  Each begins at the next multiple of general.alignment, as in llama.cpp.
  """
  align = found.alignment
  begin = end = found.begin
  for name, x in sorted(found.tensors.items(), key=lambda item: item[1].begin):
    known = tensor_bytes(x)
    if x.begin != begin and begin is not None:
      raise tensor_files.file_error(
          path, f'has a damaged header: expected the tensor {name} to begin at '
          f'byte {begin}, behind the one before it, received {x.begin}')
    end = x.begin + (known or 0)
    begin = None if known is None else end + -end % align
    if end > size:
      raise tensor_files.file_error(
          path, f'is cut short: {name} ends at byte {end} of {size}')
  if begin is not None and size > begin + align:
    raise tensor_files.file_error(
        path, f'has {size - end} bytes that belong to no tensor')


def tensor_bytes(stored: gguf_header.Stored) -> int | None:
  """The size of a tensor in its file; None if its type is not known."""
  import gguf  # pylint: disable=g-import-not-at-top
  sizes = {int(kind): x for kind, x in gguf.GGML_QUANT_SIZES.items()}
  block, width = sizes.get(stored.kind, (1, 0))
  if not width or stored.shape and stored.shape[-1] % block:
    return None
  return math.prod(stored.shape) // block * width


def _section(path: str, kind: str, metadata: Mapping[str, Any]
            ) -> file_section.Section:
  """The keys of the architecture; what all layers have alike, said once."""
  fields = {key.removeprefix(f'{kind}.'): value
            for key, value in metadata.items() if key.startswith(f'{kind}.')}
  for key in _BY_LAYER:
    values = fields.get(key)
    if isinstance(values, list) and values and len(values) == fields.get(
        'block_count') and values == values[:1] * len(values):
      fields[key] = values[0]
  return file_section.Section(fields, path, kind)


def read_fields(path: str) -> dict[str, Any]:
  """The config.json that describes the file's model.

  Raises:
    ConfigError: not a GGUF file, an unsupported architecture, or a key that is
      missing, out of bounds, not supported or in conflict with another.
  """
  metadata, stored = header(str(path))[:2]
  kind = metadata['general.architecture']
  section = _section(str(path), kind, metadata)
  sizes = section.values(architecture.Config, _SIZES)
  heads, theta = sizes['heads'], [10_000.] * (kind == 'llama')
  fields = {
      'architectures': [ARCHITECTURES[kind]],
      'model_type': {'gemma3': 'gemma3_text'}.get(kind, kind),
      'tie_word_embeddings': 'output.weight' not in stored,
      'vocab_size': _pieces(str(path), metadata, stored, section),
      'num_hidden_layers': sizes['layers'], 'hidden_size': sizes['width'],
      'num_attention_heads': heads,
      'head_dim': _head_size(section, sizes['width'], heads),
      'num_key_value_heads': section.value(
          architecture.Config, 'kv_heads', 'attention.head_count_kv', heads),
      'intermediate_size': sizes['mlp'],
      'max_position_embeddings': sizes['max_len'],
      'rms_norm_eps': sizes['rms_eps'],
      'rope_theta': section.value(
          architecture.Config, 'rope_theta', 'rope.freq_base', *theta)}
  if heads % fields['num_key_value_heads']:
    raise section.refused('attention.head_count_kv', f'a divisor of {heads}',
                          fields['num_key_value_heads'])
  _check_layers(str(path), sizes['layers'], stored)
  if kind == 'gemma3':
    fields |= _gemma(section, fields)
  scaling = _scaling(section, kind, sizes['max_len'])
  if FREQUENCIES in stored:
    if scaling or kind != 'llama':
      raise tensor_files.file_error(
          path, f'has the tensor {FREQUENCIES}, expected only in a Llama '
          'without rope.scaling')
    scaling = _llama3_scaling(str(path), stored[FREQUENCIES], fields)
  for key, only in _NEUTRAL.items():
    section.fixed(key, *only)
  section.finish()
  return fields | ({'rope_scaling': scaling} if scaling else {})


def _pieces(path: str, metadata: Mapping[str, Any],
            stored: Mapping[str, gguf_header.Stored],
            section: file_section.Section) -> int:
  """The rows of the embedding, which a file may say three times."""
  if EMBEDDING not in stored:
    raise tensor_files.file_error(path, f'the tensor {EMBEDDING} is missing')
  rows = stored[EMBEDDING].shape[0] if stored[EMBEDDING].shape else 0
  section.fixed('vocab_size', rows, reason=f', the rows of {EMBEDDING}')
  tokens = metadata.get('tokenizer.ggml.tokens')
  if tokens is not None and (
      not isinstance(tokens, list) or len(tokens) != rows):
    found = len(tokens) if isinstance(tokens, list) else repr(tokens)
    raise tensor_files.file_error(
        path, f'expected tokenizer.ggml.tokens to be {rows} tokens, the rows '
        f'of {EMBEDDING}, received {found}')
  return rows


def _head_size(section: file_section.Section, width: int, heads: int) -> int:
  """Of keys and values, all of whose entries rotate."""
  size = section.value(
      architecture.Config, 'head_size', 'attention.key_length', width // heads)
  if width % heads and not section.said('attention.key_length'):
    raise section.refused('attention.head_count', 'a divisor of '
                          f'embedding_length = {width}, without '
                          'attention.key_length', heads)
  for key in ('attention.value_length', 'attention.key_length_swa',
              'attention.value_length_swa', 'rope.dimension_count',
              'rope.dimension_count_swa'):
    section.fixed(key, size, reason=", the size of a head's keys")
  return size


def _check_layers(path: str, layers: int,
                  stored: Mapping[str, gguf_header.Stored]) -> None:
  found = {int(match[1]) for name in stored
           if (match := re.match(r'blk\.(\d+)\.', name))}
  if stored and found != set(range(layers)):
    raise tensor_files.file_error(
        path, f'expected block_count to be the blocks whose tensors it holds, '
        f'{len(found)}, received {layers}')


def _gemma(section: file_section.Section, fields: Mapping[str, Any]
          ) -> dict[str, Any]:
  """Keys of Gemma 3 alone."""
  layers = fields['num_hidden_layers']
  value = functools.partial(section.value, architecture.Config)
  found = {'sliding_window': value('window', 'attention.sliding_window'),
           'rope_local_base_freq': value(
               'rope_theta_local', 'rope.freq_base_swa', 10_000.),
           'final_logit_softcapping': value(
               'softcap_final', 'final_logit_softcapping', None),
           # Not in the file. It is the head size, except in the largest model.
           'query_pre_attn_scalar': fields['head_dim'] if layers != 62 else (
               fields['hidden_size'] // fields['num_attention_heads'])}
  key = 'attention.sliding_window_pattern'
  local = section.raw(key)
  if not isinstance(local, list):
    return found | {
        'sliding_window_pattern': value('global_every', key, 6)}
  if len(local) != layers or not all(type(x) is bool for x in local):
    raise section.refused(
        key, f'a number, or true or false {layers} times', local)
  return found | {'layer_types': [
      'sliding_attention' if x else 'full_attention' for x in local]}


def _scaling(section: file_section.Section, kind: str, context: int
            ) -> dict[str, Any] | None:
  """rope_scaling; without a type a factor is linear, as in llama.cpp."""
  key, first = 'rope.scaling.factor', 'rope.scale_linear'
  old = section.plain(first, float, None, '>= 1')  # the key's first name
  factor = section.plain(key, float, old, '>= 1')
  section.agree(key, first, old in (None, factor))
  name = section.raw('rope.scaling.type')
  if name is None:
    name = 'none' if factor is None else 'linear'
  value = functools.partial(section.value, architecture.RopeScaling)
  original = value(
      'original_len', 'rope.scaling.original_context_length', context)
  known = ('none', 'linear', 'yarn') if kind == 'llama' else ('none', 'linear')
  if name not in known:
    raise section.refused('rope.scaling.type', ' or '.join(known), name)
  if name == 'none':
    if factor not in (None, 1.):
      raise section.refused(key, '1 with the rope.scaling.type none', factor)
    return None
  if factor is None:
    raise section.refused(key, f'a number with the type {name}', None)
  found = {'rope_type': name, 'factor': factor}
  if name == 'linear':
    return found
  return found | {
      'original_max_position_embeddings': original,
      'beta_fast': value('beta_fast', 'rope.scaling.yarn_beta_fast', 32.),
      'beta_slow': value('beta_slow', 'rope.scaling.yarn_beta_slow', 1.)}


def _llama3_scaling(path: str, stored: gguf_header.Stored,
                    fields: Mapping[str, Any]) -> dict[str, Any] | None:
  """Llama 3's rope_scaling, from the divisor of each frequency in the file."""
  size, theta = fields['head_dim'], fields['rope_theta']
  data = np.memmap(path, np.uint8, 'r')[stored.begin:]
  if stored.kind != 0 or stored.shape != (size // 2,):
    raise tensor_files.file_error(
        path, f'expected {FREQUENCIES} to be {size // 2} numbers of float32, '
        f'received the shape {stored.shape} of type {stored.kind}')
  divisor = data[:4 * (size // 2)].view('<f4')
  if np.all(divisor == 1):
    return None
  scaling = architecture.RopeScaling('llama3', float(divisor.max()), 8192)
  expected = rotary.frequencies(size, theta) / rotary.frequencies(
      size, theta, scaling) if 1 < scaling.factor < math.inf else math.nan
  if not np.allclose(divisor, expected, rtol=1e-4):
    raise tensor_files.file_error(
        path, f'{FREQUENCIES} is not the scaling of Llama 3, the only one '
        'supported')
  return {'rope_type': 'llama3', 'factor': scaling.factor,
          'low_freq_factor': scaling.low_freq,
          'high_freq_factor': scaling.high_freq,
          'original_max_position_embeddings': scaling.original_len}
