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

from r1jax import errors
from r1jax.data.vocabs import gguf_header
from r1jax.models import architecture
from r1jax.models import rotary
from r1jax.models import tensor_files

ARCHITECTURES = {'llama': 'LlamaForCausalLM', 'gemma3': 'Gemma3ForCausalLM'}
EMBEDDING, FREQUENCIES = 'token_embd.weight', 'rope_freqs.weight'
_MOST = 2**31 - 1

# Keys of the section, and the values of each that change nothing.
_NEUTRAL = {
    'expert_count': (0,), 'expert_used_count': (0,), 'logit_scale': (1.,),
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
  try:
    found = gguf_header.read_header(path)
  except ValueError as problem:
    raise tensor_files.file_error(
        path, f'not a GGUF file, or damaged: {problem}') from problem
  values = found.metadata
  _check_is(path, 'general.architecture', values.get('general.architecture'),
            *ARCHITECTURES)
  _check_is(path, 'general.type', values.get('general.type', 'model'), 'model')
  _check_is(path, 'split.count', values.get('split.count', 1), 1, 0)
  _check_places(path, found, size)
  return found


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


class Section:
  """The keys of a file's architecture, each of which is to be taken.

  Values are checked as they are taken: whole numbers from 1, and numbers that
  are finite and above 0.
  """

  def __init__(self, path: str, kind: str, metadata: Mapping[str, Any]):
    self._path, self._prefix = path, f'{kind}.'
    self._left = {key.removeprefix(self._prefix): value
                  for key, value in metadata.items()
                  if key.startswith(self._prefix)}

  def get(self, key: str) -> Any:
    """A value that is not taken by this, None if there is none."""
    return self._left.get(key)

  def error(self, key: str, expected: str, received: Any
            ) -> errors.ConfigError:
    return tensor_files.file_error(
        self._path, f'expected {self._prefix}{key} to be {expected}, received '
        f'{received!r:.80}')

  def take(self, key: str, default: Any = None) -> Any:
    return self._left.pop(key, default)

  def count(self, key: str, default: int | None = None) -> int:
    """A whole number; the default, if there is one, where it is left out."""
    value = self.take(key, default)
    if type(value) is not int or not 1 <= value <= _MOST:
      raise self.error(key, 'a whole number from 1', value)
    return value

  def of_layers(self, key: str, layers: int, default: int | None = None) -> int:
    """A count that may be one for each layer, which must all be the same."""
    values = self._left.get(key)
    if isinstance(values, list):
      if len(values) != layers or len(set(values)) != 1:
        raise self.error(key, f'one number, or {layers} equal ones', values)
      self._left[key] = values[0]
    return self.count(key, default)

  def number(self, key: str, default: float | None = None,
             above: float = 0.) -> float:
    """A finite number above another, often 0."""
    value = self.take(key, default)
    if isinstance(value, bool) or not isinstance(
        value, (int, float)) or not above < value < math.inf:
      raise self.error(key, f'a number above {above:g}', value)
    return float(value)

  def same(self, key: str, wanted: Any, reason: str) -> None:
    """Takes a key that says again what is known from elsewhere."""
    value = self.take(key, wanted)
    if type(value) is not type(wanted) or value != wanted:
      raise self.error(key, f'{wanted}, {reason}', value)

  def end(self) -> None:
    """Raises unless all that was not taken is known to change nothing."""
    for key, value in self._left.items():
      if key not in _NEUTRAL:
        raise tensor_files.file_error(
            self._path, f'has the key {self._prefix}{key} = {value!r:.80}, '
            'which is not supported')
      if value not in _NEUTRAL[key]:
        raise self.error(key, ' or '.join(map(repr, _NEUTRAL[key])), value)


def read_fields(path: str) -> dict[str, Any]:
  """The config.json that describes the file's model.

  Raises:
    ConfigError: not a GGUF file, an unsupported architecture, or a key that is
      missing, out of bounds, not supported or in conflict with another.
  """
  metadata, stored = header(str(path))[:2]
  kind = metadata['general.architecture']
  section = Section(str(path), kind, metadata)
  layers = section.count('block_count')
  width = section.count('embedding_length')
  heads = section.of_layers('attention.head_count', layers)
  fields = {
      'architectures': [ARCHITECTURES[kind]],
      'model_type': {'gemma3': 'gemma3_text'}.get(kind, kind),
      'tie_word_embeddings': 'output.weight' not in stored,
      'vocab_size': _pieces(str(path), metadata, stored, section),
      'num_hidden_layers': layers, 'hidden_size': width,
      'num_attention_heads': heads,
      'head_dim': _head_size(section, width, heads),
      'num_key_value_heads': section.of_layers(
          'attention.head_count_kv', layers, heads),
      'intermediate_size': section.of_layers('feed_forward_length', layers),
      'max_position_embeddings': section.count('context_length'),
      'rms_norm_eps': section.number('attention.layer_norm_rms_epsilon'),
      'rope_theta': section.number(
          'rope.freq_base', 10_000. if kind == 'llama' else None, above=1)}
  if heads % fields['num_key_value_heads']:
    raise section.error('attention.head_count_kv', f'a divisor of {heads}',
                        fields['num_key_value_heads'])
  _check_layers(str(path), layers, stored)
  if kind == 'gemma3':
    fields |= _gemma(section, fields)
  scaling = _scaling(section, kind, fields['max_position_embeddings'])
  if FREQUENCIES in stored:
    if scaling or kind != 'llama':
      raise tensor_files.file_error(
          path, f'has the tensor {FREQUENCIES}, expected only in a Llama '
          'without rope.scaling')
    scaling = _llama3_scaling(str(path), stored[FREQUENCIES], fields)
  section.end()
  return fields | ({'rope_scaling': scaling} if scaling else {})


def _check_is(path: str, key: str, value: Any, *choices: Any) -> None:
  if type(value) not in (str, int) or value not in choices:
    raise tensor_files.file_error(
        path, f'expected {key} to be {" or ".join(map(str, choices))}, '
        f'received {value!r:.80}')


def _pieces(path: str, metadata: Mapping[str, Any],
            stored: Mapping[str, gguf_header.Stored], section: Section) -> int:
  """The rows of the embedding, which a file may say three times."""
  if EMBEDDING not in stored:
    raise tensor_files.file_error(path, f'the tensor {EMBEDDING} is missing')
  rows = stored[EMBEDDING].shape[0] if stored[EMBEDDING].shape else 0
  section.same('vocab_size', rows, f'the rows of {EMBEDDING}')
  tokens = metadata.get('tokenizer.ggml.tokens')
  if tokens is not None and (
      not isinstance(tokens, list) or len(tokens) != rows):
    found = len(tokens) if isinstance(tokens, list) else repr(tokens)
    raise tensor_files.file_error(
        path, f'expected tokenizer.ggml.tokens to be {rows} tokens, the rows '
        f'of {EMBEDDING}, received {found}')
  return rows


def _head_size(section: Section, width: int, heads: int) -> int:
  """Of keys and values, all of whose entries rotate."""
  if section.get('attention.key_length') is not None:
    size = section.count('attention.key_length')
  elif width % heads:
    raise section.error('attention.head_count', 'a divisor of embedding_length '
                        f'= {width}, without attention.key_length', heads)
  else:
    size = width // heads
  for key in ('attention.value_length', 'attention.key_length_swa',
              'attention.value_length_swa', 'rope.dimension_count',
              'rope.dimension_count_swa'):
    section.same(key, size, "the size of a head's keys")
  return size


def _check_layers(path: str, layers: int,
                  stored: Mapping[str, gguf_header.Stored]) -> None:
  found = {int(match[1]) for name in stored
           if (match := re.match(r'blk\.(\d+)\.', name))}
  if stored and found != set(range(layers)):
    raise tensor_files.file_error(
        path, f'expected block_count to be the blocks whose tensors it holds, '
        f'{len(found)}, received {layers}')


def _gemma(section: Section, fields: Mapping[str, Any]) -> dict[str, Any]:
  """Keys of Gemma 3 alone."""
  layers = fields['num_hidden_layers']
  found = {'sliding_window': section.count('attention.sliding_window'),
           'rope_local_base_freq': section.number(
               'rope.freq_base_swa', 10_000., above=1),
           # Not in the file. It is the head size, except in the largest model.
           'query_pre_attn_scalar': fields['head_dim'] if layers != 62 else (
               fields['hidden_size'] // fields['num_attention_heads'])}
  if section.get('final_logit_softcapping') is not None:
    found['final_logit_softcapping'] = section.number('final_logit_softcapping')
  pattern = 'attention.sliding_window_pattern'
  if not isinstance(section.get(pattern), list):
    return found | {'sliding_window_pattern': section.count(pattern, 6)}
  local = section.take(pattern)
  if len(local) != layers or not all(type(x) is bool for x in local):
    raise section.error(
        pattern, f'a number, or true or false {layers} times', local)
  return found | {'layer_types': [
      'sliding_attention' if x else 'full_attention' for x in local]}


def _scaling(section: Section, kind: str, context: int
             ) -> dict[str, Any] | None:
  """rope_scaling; without a type a factor is linear, as in llama.cpp."""
  old = section.take('rope.scale_linear')  # the key's first name
  if old is not None:
    section.same('rope.scaling.factor', old, 'as rope.scale_linear')
  factor = section.take('rope.scaling.factor', old)
  default = 'none' if factor is None else 'linear'
  name = section.take('rope.scaling.type', default)
  original = section.count('rope.scaling.original_context_length', context)
  known = ('none', 'linear', 'yarn') if kind == 'llama' else ('none', 'linear')
  if name not in known:
    raise section.error('rope.scaling.type', ' or '.join(known), name)
  if name == 'none':
    if factor not in (None, 1.):
      raise section.error(
          'rope.scaling.factor', '1 with the rope.scaling.type none', factor)
    return None
  if isinstance(factor, bool) or not isinstance(
      factor, (int, float)) or not 1 <= factor < math.inf:
    raise section.error('rope.scaling.factor',
                        f'a number from 1 with the type {name}', factor)
  found = {'rope_type': name, 'factor': float(factor)}
  if name == 'linear':
    return found
  return found | {
      'original_max_position_embeddings': original,
      'beta_fast': section.number('rope.scaling.yarn_beta_fast', 32.),
      'beta_slow': section.number('rope.scaling.yarn_beta_slow', 1.)}


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
