"""GGUF headers: read as the config.json that says the same, or refused."""

import dataclasses
import json
import random

import numpy as np
import pytest

import gguf_files
import released
from r1jax import errors
from r1jax.models import gguf_config
from r1jax.models import hf
from r1jax.models import hf_config


@pytest.fixture(name='read')
def _read(tmp_path):
  """Returns a function that reads a header with some keys changed."""
  def read(kind, changes):
    values = gguf_files.header(kind) | {
        f'{kind}.{key}' if key.partition('.')[0] not in (
            'general', 'split', 'tokenizer') else key: value
        for key, value in changes.items()}
    arrays = {'token_embd.weight': np.zeros((96, 32), np.float32)} | {
        f'blk.{layer}.x.weight': np.zeros(1, np.float32)
        for layer in range(gguf_files.header(kind)[f'{kind}.block_count'])}
    return hf.read_config(gguf_files.write(tmp_path / 'x.gguf', values, arrays))
  return read


def _config_json(kind, changes):
  """The fixture's config.json with other values, and without a head."""
  path = released.FOLDER / gguf_files.KINDS[kind] / 'config.json'
  fields = json.loads(path.read_text('utf-8')) | {'tie_word_embeddings': True}
  if kind == 'gemma3':
    fields['query_pre_attn_scalar'] = 12
  return hf_config.from_json(fields | changes, str(path))


def _rope(kind, **changes):
  """rope_parameters, of Gemma's global layers."""
  if kind == 'llama':
    return {'rope_parameters': dict(rope_theta=500.) | changes}
  return {'rope_parameters': {
      'full_attention': dict(rope_theta=5000.) | changes,
      'sliding_attention': dict(rope_type='default', rope_theta=100.)}}


_S, _G = 'sliding_attention', 'full_attention'


@pytest.mark.parametrize('kind, header, config', [
    ('llama', {}, {}),
    ('llama', {'context_length': 30}, {'max_position_embeddings': 30}),
    ('llama', {'attention.layer_norm_rms_epsilon': .25}, {'rms_norm_eps': .25}),
    ('llama', {'rope.freq_base': None}, _rope(
        'llama', rope_type='default', rope_theta=10_000.)),
    ('llama', {'attention.head_count': [4, 4],
               'attention.head_count_kv': [2, 2],
               'feed_forward_length': [40, 40]}, {}),
    ('llama', {'attention.head_count_kv': None}, {'num_key_value_heads': 4}),
    ('llama', {'pooling_type': 0, 'embedding_scale': 1.,
               'residual_scale': 1.}, {}),
    ('llama', {'rope.scaling.type': 'none', 'rope.scaling.factor': 1.}, {}),
    ('llama', {'rope.scaling.type': 'linear', 'rope.scaling.factor': 4.},
     _rope('llama', rope_type='linear', factor=4.)),
    ('llama', {'rope.scaling.factor': 4.},  # linear where it says no type
     _rope('llama', rope_type='linear', factor=4.)),
    ('llama', {'rope.scale_linear': 4.},  # the key's first name
     _rope('llama', rope_type='linear', factor=4.)),
    ('llama', {'rope.scaling.type': 'yarn', 'rope.scaling.factor': 4.,
               'rope.scaling.original_context_length': 32},
     _rope('llama', rope_type='yarn', factor=4.,
           original_max_position_embeddings=32)),
    ('llama', {'rope.scaling.type': 'yarn', 'rope.scaling.factor': 4.,
               'rope.scaling.yarn_beta_fast': 8.,
               'rope.scaling.yarn_beta_slow': 2.},
     _rope('llama', rope_type='yarn', factor=4., beta_fast=8., beta_slow=2.)),
    ('gemma3', {}, {}),
    ('gemma3', {'attention.sliding_window': 9}, {'sliding_window': 9}),
    ('gemma3', {'attention.sliding_window_pattern': 2}, {
        'layer_types': [_S, _G, _S, _G]}),
    ('gemma3', {'attention.sliding_window_pattern': [True, False] * 2}, {
        'layer_types': [_S, _G, _S, _G]}),
    ('gemma3', {'final_logit_softcapping': 3.}, {
        'final_logit_softcapping': 3.}),
    ('gemma3', {'rope.scaling.type': None, 'rope.scaling.factor': None},
     _rope('gemma3', rope_type='default')),
])
def test_a_header_is_the_config_json_that_says_the_same(
    read, kind, header, config):
  assert _near(read(kind, header), _config_json(kind, config))


def _near(one, other):
  """Equal, but for the rounding of eps to float32."""
  return one.rms_eps == pytest.approx(other.rms_eps, rel=1e-6) and (
      one == dataclasses.replace(other, rms_eps=one.rms_eps))


@pytest.mark.parametrize('key, value', [
    ('general.alignment', 0), ('general.alignment', 'x'),
    ('general.alignment', 24), ('general.type', 'adapter'),
    ('general.type', 3), ('split.count', 2), ('split.count', True),
    ('block_count', None), ('block_count', 0), ('block_count', 3),
    ('block_count', 2.), ('block_count', True), ('block_count', '2'),
    ('context_length', None), ('embedding_length', [32]),
    ('embedding_length', -32), ('feed_forward_length', [40, 41]),
    ('feed_forward_length', [40]), ('attention.head_count', [4, 2]),
    ('attention.head_count', 0), ('attention.head_count', ['4', '4']),
    ('attention.head_count_kv', 3), ('attention.head_count_kv', [2, 1]),
    ('attention.key_length', 'x'),
    ('attention.value_length', 4), ('rope.dimension_count', 4),
    ('rope.dimension_count', 16), ('rope.dimension_count', [8]),
    ('attention.layer_norm_rms_epsilon', None),
    ('attention.layer_norm_rms_epsilon', 0.),
    ('attention.layer_norm_rms_epsilon', float('nan')),
    ('attention.layer_norm_rms_epsilon', '1e-5'),
    ('rope.freq_base', 0.), ('rope.freq_base', float('inf')),
    ('rope.freq_base', [500.]), ('vocab_size', 95), ('vocab_size', True),
    ('tokenizer.ggml.tokens', ['a', 'b']), ('tokenizer.ggml.tokens', 96),
    ('rope.scaling.type', 'longrope'), ('rope.scaling.type', 3),
    ('rope.scaling.factor', 0.), ('rope.scaling.factor', float('nan')),
    ('rope.scaling.factor', True), ('rope.scaling.factor', '4'),
    ('rope.scaling.original_context_length', 0),
    ('rope.scaling.attn_factor', 2.), ('rope.scaling.yarn_ext_factor', 0.),
    ('rope.scaling.yarn_log_multiplier', .1), ('rope.scaling.alpha', 2.),
    ('attention.sliding_window', 8), ('attention.scale', .5),
    ('attention.causal', False), ('attention.clamp_kqv', 3.),
    ('pooling_type', 2), ('pooling_type', False), ('embedding_scale', 2.),
    ('residual_scale', .5), ('logit_scale', .5), ('expert_count', 8), ('final_logit_softcapping', 3.),
    ('rope.dimension_sections', [2, 2]), ('of_tomorrow', 1)])
def test_a_key_of_llama_that_is_refused(read, key, value):
  _refused(read, 'llama', {key: value}, key)


@pytest.mark.parametrize('key, value', [
    ('rope.freq_base', None), ('attention.sliding_window', None),
    ('attention.sliding_window', 0), ('rope.freq_base_swa', -1.),
    ('attention.sliding_window_pattern', 0),
    ('attention.sliding_window_pattern', [True]),
    ('attention.sliding_window_pattern', [1, 0, 1, 0]),
    ('rope.scaling.type', 'yarn'), ('attn_logit_softcapping', 30.),
    ('attention.key_length_swa', 8), ('rope.dimension_count_swa', 6)])
def test_a_key_of_gemma_that_is_refused(read, key, value):
  _refused(read, 'gemma3', {key: value}, key)


@pytest.mark.parametrize('changes, key', [
    ({'rope.scaling.type': 'none', 'rope.scaling.factor': 4.}, 'none'),
    ({'rope.scaling.type': 'linear'}, 'linear'),
    ({'rope.scaling.type': 'yarn'}, 'yarn'),
    ({'attention.key_length': 7}, 'attention.value_length'),
    ({'rope.scaling.factor': 2., 'rope.scale_linear': 4.},
     'factor = 2.0 and llama.rope.scale_linear = 4.0 disagree'),
    ({'attention.head_count': 5, 'attention.key_length': None}, 'head_count'),
    ({'attention.key_length': 16}, 'attention.value_length')])
def test_keys_that_contradict_each_other(read, changes, key):
  _refused(read, 'llama', changes, key)


def _refused(read, kind, changes, word):
  with pytest.raises(errors.ConfigError) as refusal:
    read(kind, changes)
  assert '\n' not in str(refusal.value)
  assert word in str(refusal.value) and 'x.gguf' in str(refusal.value)


_VALUES = (
    None, 0, 1, 2, 4, 8, -1, 2**31, 2**40, True, False, 0., 1., .5, -1.,
    float('nan'), float('inf'), '', 'linear', 'yarn', 'x', [1], [2, 2],
    [4, 4], [True, False], ['a'], [8.] * 4)
_MORE = (
    'rope.scaling.type', 'rope.scaling.factor', 'rope.scale_linear',
    'attention.scale', 'attention.sliding_window', 'final_logit_softcapping',
    'attention.sliding_window_pattern', 'expert_count', 'general.type',
    'general.alignment', 'split.count', 'tokenizer.ggml.tokens', 'unheard.of')


_SAYS = {  # a key of a header, and that of config.json
    'context_length': 'max_position_embeddings',
    'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size',
    'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads',
    'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
    'attention.sliding_window': 'sliding_window',
    'final_logit_softcapping': 'final_logit_softcapping'}
_ROPE = {'rope.freq_base': 'rope_theta', 'rope.scaling.factor': 'factor',
         'rope.scale_linear': 'factor'}
# Known without the key, and values that are as good as no key.
_SAYS_AGAIN = ('vocab_size', 'attention.key_length', 'attention.value_length',
               'rope.dimension_count')
_SAYS_NOTHING = gguf_config._NEUTRAL | {
    'general.type': ('model',), 'split.count': (0, 1),
    'general.alignment': (32,)}
_LEFT_OUT = {  # what a key that is left out stands for
    'rope.freq_base': 10_000., 'rope.freq_base_swa': 10_000.,
    'attention.sliding_window_pattern': 6, 'attention.head_count_kv': 4}


def _says(kind, key, value):
  """What config.json says if a key has the value; None: it is refused."""
  old = gguf_files.header(kind).get(f'{kind}.{key}')
  if value == old or value is None and key in _SAYS_AGAIN:
    return {}
  if value is None:
    value = _LEFT_OUT.get(key)
  elif isinstance(value, list) and value == value[:1] * len(value) and (
      key in gguf_config._BY_LAYER):
    value = value[0]
  if key in _SAYS:
    return {_SAYS[key]: value}
  if key in _ROPE:
    scaling = {'rope_type': 'linear', 'factor': 8.} if (
        kind == 'gemma3' or key != 'rope.freq_base') else {}
    return _rope(kind, **scaling | {_ROPE[key]: value})
  if key == 'rope.freq_base_swa':
    rope = _rope(kind, rope_type='linear', factor=8.)
    rope['rope_parameters'][_S]['rope_theta'] = value
    return rope
  if key == 'attention.sliding_window_pattern':
    local = value if isinstance(value, list) else [
        (layer + 1) % value for layer in range(4)]
    return {'layer_types': [_S if x else _G for x in local]}
  if key == 'rope.scaling.type' and kind == 'gemma3' and value is None:
    return {}  # its factor is linear
  return {} if value in _SAYS_NOTHING.get(key, ()) else None


def _changes():
  """(kind, key, value): each key with values like its own and with others."""
  rng = random.Random(0)
  for kind in gguf_files.KINDS:
    values = {key.removeprefix(f'{kind}.'): value
              for key, value in gguf_files.header(kind).items()}
    del values['general.architecture']
    for key in sorted({*values, *_MORE}):
      old = values.get(key, 8.)
      near = [] if isinstance(old, str) else [
          2 * old, old + 1, old / 2, old // 2]
      for value in [*near, None, [True, False] * 2, *rng.sample(_VALUES, 5)]:
        yield kind, key, value


def test_any_change_of_a_key_is_what_it_says_or_refused_in_one_line(read):
  refused, others = 0, set()
  for kind, key, value in _changes():
    try:
      config = read(kind, {key: value})
      config.check()
    except errors.ConfigError as refusal:
      assert 'x.gguf' in str(refusal) and '\n' not in str(refusal), value
      refused += 1
      continue
    says = _says(kind, key, value)
    assert says is not None, (kind, key, value)
    assert _near(config, _config_json(kind, says)), (kind, key, value)
    others |= {key} if says else set()
  assert 300 < refused < 500 and others == {
      *_SAYS, *_ROPE, 'rope.freq_base_swa', 'attention.sliding_window_pattern'}


def test_any_change_of_bytes_is_read_or_refused_in_one_line(tmp_path, read):
  read('llama', {'tokenizer.ggml.model': 'llama', 'rope.scaling.factor': 4.})
  path, rng = tmp_path / 'x.gguf', random.Random(0)
  whole = path.read_bytes()
  for number in range(300):
    data = bytearray(whole)
    if number % 3:
      for _ in range(rng.choice([1, 1, 3])):
        data[rng.randrange(len(whole))] = rng.choice([0, 1, 255, 65])
    else:
      data = data[:rng.randrange(len(whole))]
    path.write_bytes(data)
    try:
      hf.read_config(str(path)).check()
    except errors.ConfigError as refusal:
      assert str(path) in str(refusal) and '\n' not in str(refusal)


def test_a_file_that_changed_is_read_again(tmp_path, read):
  del tmp_path
  assert read('llama', {}).max_len == 128
  assert read('llama', {'context_length': 99}).max_len == 99
