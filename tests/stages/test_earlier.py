"""The config.json of a workdir that a stage begins from, read with care."""

import json

import pytest

import tiny
from r1jax import errors
from r1jax.stages import inputs
from r1jax.stages import model_rewards
from r1jax.stages import model_source

_SOUND = dict(model=tiny.SHAPE, init_from=None, lora=None, vocab=dict(
    kind='sentencepiece', path='mini', eos=None))
_LORA = dict(rank=4, alpha=8., targets=['*'])


def _workdir(folder, fields):
  (folder / 'checkpoints' / '1').mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(fields), 'utf-8')
  return model_source.find(str(folder), 'critic.init_from')


@pytest.mark.parametrize('name, value', [
    *(('model', value) for value in (None, 3, [1])),
    *(('model.preset', value) for value in (3, ['a'])),
    ('init_from', 5), ('vocab.eos', 5), ('vocab', 'mini'), ('vocab.path', 3),
    *(('vocab.kind', value) for value in (['x'], None, 'x')),
    ('lora', 4), ('lora.rank', '4'), ('lora.rank', -1), ('lora.rank', None),
    *(('lora.alpha', value) for value in (float('nan'), None, '8')),
    ('lora.targets', None), ('lora.targets', [1])])
def test_values_of_another_type(tmp_path, name, value):
  section, _, key = name.partition('.')
  inner = {'lora': _LORA}.get(section, _SOUND.get(section))
  changed = {**inner, key: value} if key else value
  source = _workdir(tmp_path, _SOUND | {section: changed})
  words = f'config.critic.init_from: {tmp_path}/config.json: expected {name} '
  with pytest.raises(errors.ConfigError, match=words):
    source.model_config()


def test_what_is_not_there(tmp_path):
  source = _workdir(tmp_path, {'model': tiny.SHAPE})
  assert source.model_config() == tiny.config()
  with pytest.raises(errors.ConfigError, match='init_from: .* section vocab'):
    source.vocabulary_fields()
  source = _workdir(tmp_path, _SOUND | dict(vocab=dict(kind='model')))
  with pytest.raises(errors.ConfigError, match='expected init_from to be a mo'):
    source.vocabulary_fields()


@pytest.mark.parametrize('names', ['a', 'ab', 'abc'])
def test_a_stage_that_begins_from_itself(tmp_path, names):
  """Also by others, or by one of its checkpoints."""
  for name, other in zip(names, names[1:] + names[0]):
    source = _workdir(tmp_path / name, _SOUND | dict(
        model={}, vocab=dict(kind='model'),
        init_from=str(tmp_path / other / 'checkpoints/1')))
  for read in (source.model_config, source.released_ancestor,
               source.vocabulary_fields, lambda: source.vocabulary(1024)):
    with pytest.raises(errors.ConfigError, match='itself; correct') as refused:
      read()
    said = str(refused.value)
    assert said.startswith('config.critic.init_from: ') and all(
        f'{tmp_path}/{name}' in said for name in names)
  assert inputs.digests(dict(init_from=source.path))  # is for the stage to say


@pytest.mark.parametrize('fields', [
    {}, dict(data=dict(template='mini')), dict(preference=dict(scores='all')),
    dict(data='x', preference=['y']),
    dict(data=dict(template=None), preference=dict(scores='summary'))])
def test_a_reward_model_of_another_stage(tmp_path, fields):
  source = _workdir(tmp_path, _SOUND | fields)
  with pytest.raises(errors.ConfigError, match=(
      f'config.x: expected the workdir of a preference .*received .{tmp_path}')):
    model_rewards._trained(source, 'x')
  source = _workdir(tmp_path, _SOUND | dict(
      data=dict(template='mini', system='Be brief.'),
      preference=dict(scores='summary')))
  trained = model_rewards._trained(source, 'x')
  assert (trained.template, trained.system, trained.scores) == (
      'mini', 'Be brief.', 'summary')


@pytest.mark.parametrize('model', [
    dict(preset='smollm2_135m', widht=3), dict(widht=3)])
def test_names_beside_a_preset_or_a_source(tmp_path, model):
  below = _workdir(tmp_path / 'below', _SOUND)
  source = _workdir(tmp_path / 'above', _SOUND | dict(
      model=model, init_from=below.path))
  with pytest.raises(errors.ConfigError, match='widht: no such.*model.width'):
    source.model_config()


def test_the_config_of_a_pipeline_is_not_that_of_its_stage(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(_SOUND), 'utf-8')
  _workdir(tmp_path / 'stage', _SOUND)
  one = model_source.find(str(tmp_path / 'stage' / 'checkpoints' / '1'))
  assert one.model_config() == tiny.config()
  (tmp_path / 'stage' / 'config.json').unlink()
  for source in (one, model_source.find(str(tmp_path / 'stage'))):
    with pytest.raises(errors.ConfigError, match='a workdir with its config'):
      source.model_config()
