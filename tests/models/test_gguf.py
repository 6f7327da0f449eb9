"""GGUF files of the fixtures' models, as llama.cpp's conversion writes them."""

import dataclasses

import gguf
import jax
import numpy as np
import pytest

import released
from r1jax import errors
from r1jax import models
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import rotary


def _write(path, kind, config, tensors, left_out=None, extra=None):
  writer = gguf.GGUFWriter(path, kind)
  numbers = {
      'block_count': config.layers, 'context_length': config.max_len,
      'embedding_length': config.width, 'feed_forward_length': config.mlp,
      'attention.head_count': config.heads,
      'attention.head_count_kv': config.kv_heads,
      'attention.key_length': config.head_size,
      'rope.dimension_count': config.head_size,
      'attention.sliding_window': config.window}
  for key, value in numbers.items():
    if value is not None and key != left_out:
      writer.add_uint32(f'{kind}.{key}', value)
  writer.add_float32(f'{kind}.attention.layer_norm_rms_epsilon',
                     config.rms_eps)
  writer.add_float32(f'{kind}.rope.freq_base', config.rope_theta)
  names = gguf.get_tensor_name_map(
      gguf.MODEL_ARCH[kind.upper()], config.layers)
  for name, x in (tensors | (extra or {})).items():
    x = np.asarray(x, np.float32)
    if kind == 'llama' and ('q_proj' in name or 'k_proj' in name):
      x = x.reshape(-1, 2, config.head_size // 2, x.shape[1]).swapaxes(
          1, 2).reshape(x.shape)
    if kind == 'gemma3' and name.endswith('norm.weight'):
      x = x + 1
    writer.add_tensor(names.get_name(name, ('.weight',)) or name,
                      np.ascontiguousarray(x))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def _load(path):
  config = hf.read_config(path)
  like = released.like(models.build(config))
  return config, hf.load_params(path, config, like)


@pytest.mark.parametrize('left_out', [
    None, 'attention.key_length', 'rope.dimension_count'])
def test_llama(tmp_path, left_out):
  path = str(tmp_path / 'llama.gguf')
  model, params, _ = released.fixture('llama')
  _write(path, 'llama', model.config,
         released.tensors(released.FOLDER / 'llama'), left_out)
  config, found = _load(path)
  assert dataclasses.replace(config, rms_eps=1e-3) == dataclasses.replace(
      model.config, rms_eps=1e-3)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_gemma_whose_norms_have_one_added(tmp_path):
  path = str(tmp_path / 'gemma.gguf')
  model, params, _ = released.fixture('gemma3_text')
  _write(path, 'gemma3', model.config,
         released.tensors(released.FOLDER / 'gemma3_text'))
  config, found = _load(path)
  assert (config.window, config.norm_offset, config.tied) == (
      model.config.window, 1., True)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
               found, params)


def _llama3(tmp_path, divisor):
  path = str(tmp_path / 'llama3.gguf')
  model, _, _ = released.fixture('llama')
  _write(path, 'llama', dataclasses.replace(model.config, rope_theta=5e5),
         released.tensors(released.FOLDER / 'llama'),
         extra={'rope_freqs.weight': divisor})
  return path


def test_the_scaling_of_llama3_is_told_by_its_divisors(tmp_path):
  scaling = architecture.RopeScaling('llama3', 32.)
  size = released.fixture('llama')[0].config.head_size
  divisor = rotary.frequencies(size, 5e5) / rotary.frequencies(
      size, 5e5, scaling)
  path = _llama3(tmp_path, divisor)
  assert _load(path)[0].rope_scaling == scaling
  path = _llama3(tmp_path, divisor ** 2)
  with pytest.raises(errors.ConfigError, match='rope_freqs.weight'):
    hf.read_config(path)


def test_what_is_no_such_file_is_refused(tmp_path):
  path = tmp_path / 'x.gguf'
  with pytest.raises(errors.ConfigError, match='there is no such file'):
    hf.read_config(str(path))
  path.write_bytes(b'GGML')
  with pytest.raises(errors.ConfigError, match='not a GGUF file'):
    hf.read_config(str(path))
  gguf_of_another = tmp_path / 'y.gguf'
  model, _, _ = released.fixture('llama')
  _write(str(gguf_of_another), 'mamba', model.config, {})
  with pytest.raises(errors.ConfigError, match="received 'mamba'"):
    hf.read_config(str(gguf_of_another))
