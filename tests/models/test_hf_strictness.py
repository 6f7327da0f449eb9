"""config.json: what transformers refuses, or would take otherwise."""

import json

import pytest

import released
import tiny
from r1jax import errors
from r1jax.models import hf_config
from r1jax.models import hf_export


def _fields(name):
  return json.loads(
      (released.FOLDER / name / 'config.json').read_text('utf-8'))


_SLIDING = ['sliding_attention', 'full_attention']


@pytest.mark.parametrize('name, changes, words', [
    *(('deepseek_v3', dict(num_nextn_predict_layers=value),
       'num_nextn_predict_layers to be') for value in (10 ** 20, '1', -1)),
    ('deepseek_v3', dict(num_mtp_layers='1'), 'num_mtp_layers to be'),
    ('deepseek_v3', dict(num_nextn_predict_layers=1, num_mtp_layers=2),
     'num_nextn_predict_layers = 1 and num_mtp_layers = 2 disagree'),
    ('llama', dict(score_offset=10 ** 400), 'score_offset to be'),
    ('llama', dict(score_offset=True), 'score_offset to be'),
    ('llama', dict(dtype='float31'), 'dtype to be float32 or'),
    ('llama', dict(torch_dtype=['float32']), 'torch_dtype to be float32 or'),
    ('llama', dict(dtype='float32', torch_dtype='float16'),
     "dtype = 'float32' and torch_dtype = 'float16' disagree"),
    *(('llama', dict(architectures=value), 'architectures to be')
      for value in ('', 0, {}, ['LlamaForCausalLM', 'Qwen2ForCausalLM'], [
          'LlamaForCausalLM', 'LlamaForSequenceClassification'])),
    ('llama', dict(attention_bias=0), 'attention_bias to be False'),
    ('llama', dict(partial_rotary_factor=True), 'partial_rotary_factor to be'),
    ('deepseek_v3', dict(rope_interleave=1), 'rope_interleave to be True'),
    ('qwen2', dict(use_sliding_window=False, layer_types=_SLIDING),
     'use_sliding_window = False and layer_types = .* disagree'),
    ('llama', dict(compression_config=dict(format='int')), 'compression_conf'),
    *(('llama', {key: None}, f'{key} to be a value, or absent') for key in (
        'tie_word_embeddings', 'rms_norm_eps', 'hidden_act'))])
def test_refusals(name, changes, words):
  with pytest.raises(errors.ConfigError, match=words):
    hf_config.from_json(_fields(name) | changes, 'FOLDER')


def test_the_same_said_twice():
  for name, changes in (
      ('llama', dict(dtype='float16', torch_dtype='half')),
      ('llama', dict(torch_dtype='double')),
      ('llama', dict(architectures=['Own', 'LlamaModel', 'LlamaForCausalLM'])),
      ('llama', dict(partial_rotary_factor=1.0, compression_config=None)),
      ('deepseek_v3', dict(num_nextn_predict_layers=1, num_mtp_layers=1))):
    fields = _fields(name)
    fields.pop('dtype', None)
    assert hf_config.from_json(fields | changes, '') == hf_config.from_json(
        fields, '')
  assert hf_config.beyond(dict(num_mtp_layers=1), '') == (1, 0.)


def test_an_original_length_at_the_top_level():
  fields = _fields('qwen2')
  scaling = fields['rope_parameters']
  length = scaling.pop('original_max_position_embeddings')
  fields['original_max_position_embeddings'] = length
  assert hf_config.from_json(fields, '') == hf_config.from_json(
      _fields('qwen2'), '')


_YARN = dict(rope_type='yarn', factor=4.)
_ORIGINAL = 'original_max_position_embeddings'


@pytest.mark.parametrize('changes, words', [
    # transformers has a section whose rope_type is 'default' already.
    (dict(rope_scaling=dict(type='linear', factor=8.)),
     "rope_scaling.type to be 'default', or the key rope_type"),
    # It reads these in no section of a kind of layer.
    (dict(rope_scaling=_YARN, original_max_position_embeddings=32),
     f'{_ORIGINAL} = None and {_ORIGINAL} = 32 disagree'),
    (dict(rope_parameters=dict(full_attention=_YARN),
          original_max_position_embeddings=32), f'{_ORIGINAL} = 32 disagree'),
    (dict(rope_scaling=dict(_YARN, truncate=False)), 'truncate to be True')])
def test_what_transformers_does_not_read_of_gemma(changes, words):
  fields = _fields('gemma3_text')
  fields.pop('rope_parameters')
  with pytest.raises(errors.ConfigError, match=words):
    hf_config.from_json(fields | changes, '')


def test_the_original_length_of_gemma():
  fields = _fields('gemma3_text') | dict(
      rope_scaling=_YARN, original_max_position_embeddings=64)
  fields.pop('rope_parameters')
  fields['max_position_embeddings'] = 64
  assert hf_config.from_json(fields, '').rope_scaling.original_len == 64


@pytest.mark.parametrize('name, wanted', [
    ('llama', 64), ('qwen2', 32), ('qwen3', 32), ('gemma3_text', 4)])
def test_key_heads_that_go_without_saying(name, wanted):
  fields = _fields(name) | dict(num_attention_heads=64, head_dim=2)
  del fields['num_key_value_heads']
  assert hf_config.from_json(fields, '').kv_heads == wanted
  fields['num_key_value_heads'] = None
  assert hf_config.from_json(fields, '').kv_heads == 64


@pytest.mark.parametrize('removed, changes', [
    ('model_type', {}), ('architectures', {}),
    ('', dict(architectures=['LlamaModel'],
              transformers_weights='model.safetensors'))])
@pytest.mark.parametrize('scalar', [False, True])
def test_an_export_says_its_class(tmp_path, removed, changes, scalar):
  source, out = tmp_path / 'source', tmp_path / 'out'
  hf_export.save_folder(str(source), tiny.config(), tiny.params())
  path = source / 'config.json'
  fields = json.loads(path.read_text('utf-8')) | changes
  fields.pop(removed, None)
  path.write_text(json.dumps(fields | dict(kept=1)), 'utf-8')
  switches = dict(scalar=scalar)
  hf_export.save_folder(str(out), tiny.config(**switches),
                        tiny.params(**switches), str(source))
  written = json.loads((out / 'config.json').read_text('utf-8'))
  assert written['kept'] == 1 and 'transformers_weights' not in written
  assert (written['model_type'], written['architectures']) == ('llama', [
      'LlamaForSequenceClassification' if scalar else 'LlamaForCausalLM'])
