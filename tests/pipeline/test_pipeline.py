"""A graph of stages: in order, passed over, resumed, begun anew, refused."""

import json
import pathlib
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict
import numpy as np
import pytest

from experiments import common
from experiments import distill
from experiments import mcts
from experiments import ppo
from experiments import pretrain
from experiments import r1
from experiments import rejection_sampling
from experiments import rlhf
from experiments import reward_sections
from r1jax import config as config_lib
from r1jax import digests
from r1jax import errors
from r1jax import pipeline
from r1jax import resuming
from r1jax import stages
from r1jax.pipeline import graph
from r1jax.pipeline import manifest
from r1jax.rewards import workers
from r1jax.stages import inputs
from r1jax.stages import model_source
from r1jax.training import files
from r1jax.training import history
from r1jax.training import logger
from r1jax.training import loop
from r1jax.types import TrainState


def _build(config, mesh, workdir):
  """A stage that adds `value` to what its inputs have left, a step a time."""
  del mesh, workdir
  begin = sum(json.loads(open(f'{path}/number.json').read())
              for path in config.inputs.values())
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=where)

  def step(state, index):
    if config.fails_at == index:
      raise Crash
    ran.append(config.name)
    return state._replace(
        step=state.step + 1, params=state.params + config.value), {
            'value': config.value, 'perf/tokens': 1, 'timing/step': .1}, []

  def evaluate(state):
    with open(f'{config.out}/number.json', 'w', encoding='utf-8') as file:
      file.write(str(int(state.params)))
    verifier = {'errors': 0, 'restarts': len(ran)}
    return {'number': int(state.params), 'verifier': verifier}, []

  return loop.Stage(
      config.steps, lambda: TrainState(
          *jax.device_put((np.int32(0), np.int32(begin)), where), {}, None,
          jax.device_put(np.int32(0), where)),
      TrainState(scalar, scalar, {}, None, scalar), step, evaluate)


class Crash(Exception):
  """Stands for a kill."""


ran = []


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
  module = types.ModuleType('toy_stage')
  module.build = _build
  monkeypatch.setitem(sys.modules, 'toy_stage', module)
  monkeypatch.setitem(stages.KINDS, 'toy', 'toy_stage')
  ran.clear()


def _stage(name, *inputs, value=1):
  config = common.base('lm', steps=2)
  del config.init_from  # of which it is nothing to wait for
  config.update(name=name, stage='toy', value=value, fails_at=-1, out='{' + name + '}',
                inputs={x: '{' + x + '}' for x in inputs})
  config.log.tensorboard = False
  config.checkpoint.every_steps = 1
  config.mesh.update(data=-1, fsdp=1)
  return config


def _config():
  """c from a and b, b from a."""
  stages = dict(c=_stage('c', 'a', 'b'), a=_stage('a'), b=_stage('b', 'a'))
  return common.pipeline(None, stages)


def _number(workdir, name):
  return json.loads((workdir / name / 'number.json').read_text())


def _manifests(workdir):
  found = {}
  for name in 'abc':
    manifest = json.loads((workdir / name / 'manifest.json').read_text())
    found[name] = {k: v for k, v in manifest.items()
                   if k not in ('seconds', 'saved')}  # Orbax draws names
  return found


def test_stages_run_in_the_order_of_their_inputs_and_once(tmp_path):
  assert pipeline.run_pipeline(_config(), str(tmp_path))
  assert ran == list('aabbcc')
  assert [_number(tmp_path, name) for name in 'abc'] == [2, 4, 8]
  assert pipeline.run_pipeline(_config(), str(tmp_path)) and len(ran) == 6
  manifest = _manifests(tmp_path)['c']
  assert set(manifest['inputs']) == {'a', 'b'}
  assert manifest['figures']['after'] == {
      'number': 8, 'verifier': {'errors': 0}}
  assert manifest['outputs']['checkpoint']


def test_a_stage_that_diverged_goes_on_with_a_lower_rate(tmp_path):
  config = _config()
  config.stages.b.fails_at = 1
  with pytest.raises(Crash):
    pipeline.run_pipeline(config, str(tmp_path))
  lower = _config()
  lower.stages.b.optim.lr /= 2
  lower.stages.b.fails_at = 1
  node = graph.nodes(lower, tmp_path)[1]
  begun = json.loads((tmp_path / 'b/begun.json').read_text())
  inputs = manifest.Inputs(begun['inputs'], begun['named'])
  assert manifest.status(node, inputs).kind is manifest.Kind.CHANGED
  history.note_divergence(tmp_path / 'b', 'step 1')
  assert manifest.status(node, inputs).kind is manifest.Kind.RESUME


def test_a_manifest_has_the_last_metrics_and_what_was_counted(tmp_path):
  # What is measured of the machine is not in it: manifests can be compared.
  counts = {'task': {'kept': 3, 'wrong': 1}}
  (tmp_path / 'c').mkdir()
  (tmp_path / 'c' / 'kept.json').write_text(json.dumps(counts))
  assert pipeline.run_pipeline(_config(), str(tmp_path))
  found = {name: m['figures'] for name, m in _manifests(tmp_path).items()}
  assert found['a']['last'] == {'step': 1, 'value': 1}
  assert found['c']['kept'] == counts and 'kept' not in found['a']


def test_a_changed_config_reruns_it_and_what_depends_on_it(tmp_path, capsys):
  pipeline.run_pipeline(_config(), str(tmp_path))
  ran.clear()
  config = _config()
  config.stages.b.value = 5
  capsys.readouterr()
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert ran == list('bbcc')
  out = capsys.readouterr().out
  assert 'changed: config.value (1 there, 5 here)' in out
  assert 'changed: input b' in out
  assert _number(tmp_path, 'c') == 2 + 12 + 2
  assert _number(tmp_path, 'b.old1') == 4  # nothing is lost


def test_files_and_runs_from_elsewhere_are_inputs(tmp_path, capsys):
  """A person goes on with a review: what was learned from it is old."""
  rows, other = tmp_path / 'rows.jsonl', tmp_path / 'other'
  rows.write_text('{}\n')
  (other / 'checkpoints').mkdir(parents=True)
  config = _config()
  config.stages.a.data = dict(task=f'drafts:jsonl:{tmp_path}/row*.jsonl',
                              text='x' * 9_999)  # too long for a path
  config.stages.b.init_from = str(other)
  workdir = str(tmp_path / 'graph')
  assert pipeline.run_pipeline(config, workdir)
  assert pipeline.run_pipeline(config, workdir) and len(ran) == 6
  rows.write_text('{}\n{}\n')
  capsys.readouterr()
  assert pipeline.run_pipeline(config, workdir) and ran[6:] == list('aa')
  assert f'changed: input {rows}' in capsys.readouterr().out
  (other / 'rollouts.jsonl').write_text('{}\n')
  assert pipeline.run_pipeline(config, workdir) and ran[8:] == list('bb')


def test_a_file_that_is_gone_is_another_input(tmp_path, capsys):
  for number in range(2):
    (tmp_path / f'part-{number}.jsonl').write_text('{}\n')
  config = _config()
  config.stages.a.data = dict(task=f'jsonl:{tmp_path}/part-*.jsonl')
  workdir = str(tmp_path / 'graph')
  pipeline.run_pipeline(config, workdir)
  (tmp_path / 'part-1.jsonl').unlink()
  assert pipeline.run_pipeline(config, workdir) and ran[6:] == list('aa')
  assert f'changed: input {tmp_path}/part-1.jsonl' in capsys.readouterr().out


def test_of_a_file_a_split_those_are_inputs_that_are_read(tmp_path):
  for split in ('train', 'heldout', 'test', 'notes'):
    (tmp_path / f'{split}.jsonl').write_text('{}\n')
  config = _config()
  config.stages.a.data = dict(
      task=f'jsonl:{tmp_path}/{{split}}.jsonl', split='test[:5]')
  node, = [node for node in graph.nodes(config, tmp_path) if node.name == 'a']
  assert [path.rpartition('/')[2] for path in inputs.external(node.config)] == [
      'heldout.jsonl', 'test.jsonl', 'train.jsonl']
  config.stages.a.eval.split = None
  node, = [node for node in graph.nodes(config, tmp_path) if node.name == 'a']
  assert len(inputs.external(node.config)) == 2
  for split in ('test', 'train'):
    (tmp_path / f'{split}.jsonl').unlink()
  assert any('no such file' in str(said) for said in graph.find_missing(node, 'abc'))


def _records(workdir, name):
  return workdir / name / 'records.jsonl'


def test_an_output_edited_in_place_is_another_input(
    tmp_path, monkeypatch, capsys):
  _writes_records(monkeypatch)
  pipeline.run_pipeline(_config(), str(tmp_path))
  ran.clear()
  _records(tmp_path, 'b').write_text('{"edited": 1}\n')
  assert pipeline.run_pipeline(_config(), str(tmp_path)) and ran == list('cc')
  assert 'changed: input b' in capsys.readouterr().out
  assert pipeline.run_pipeline(_config(), str(tmp_path)) and len(ran) == 2


def test_lost_outputs_are_made_again_or_refused(tmp_path, monkeypatch, capsys):
  _writes_records(monkeypatch)
  pipeline.run_pipeline(_config(), str(tmp_path))
  before = _manifests(tmp_path)
  _records(tmp_path, 'a').unlink()
  shutil.rmtree(tmp_path / 'b/checkpoints')
  ran.clear()
  assert pipeline.run_pipeline(_config(), str(tmp_path))
  out = capsys.readouterr().out
  assert 'a  to be resumed, records.jsonl lost' in out
  assert 'b (to be resumed, checkpoint lost)' in out
  assert ran == list('bb') and _manifests(tmp_path) == before
  shutil.rmtree(tmp_path / 'b/checkpoints/2')  # an earlier one is there
  assert pipeline.run_pipeline(_config(), str(tmp_path)) and ran == list('bbb')
  assert _manifests(tmp_path) == before
  monkeypatch.setattr(sys.modules['toy_stage'], 'build', _build)
  _records(tmp_path, 'b').unlink()  # and is not made again
  for _ in range(2):
    with pytest.raises(errors.ConfigError, match='stages.b: records.jsonl'):
      pipeline.run_pipeline(_config(), str(tmp_path))
  shutil.rmtree(tmp_path / 'b')
  assert pipeline.run_pipeline(_config(), str(tmp_path))


@pytest.mark.parametrize('damage', [
    lambda content: content[:-1],
    lambda content: content[:-1] + bytes([content[-1] ^ 1])])
def test_a_finished_stage_s_checkpoint_that_is_damaged_is_made_again(
    tmp_path, capsys, damage):
  """Before another stage, or nobody, reads it."""
  config = _config()
  config.until = 'a'
  pipeline.run_pipeline(config, str(tmp_path))
  outputs = files.output_digests(tmp_path / 'a')
  arrays = [path for path in (tmp_path / 'a/checkpoints/2/params').rglob('*')
            if path.is_file() and path.parent.name == 'd']
  for path in arrays:
    path.write_bytes(damage(path.read_bytes()))
  for said in ('a  to be resumed, its last checkpoint is damaged', 'a  done'):
    capsys.readouterr()
    assert arrays and pipeline.run_pipeline(config, str(tmp_path))
    assert said in capsys.readouterr().out and ran == list('aaa')
  assert files.output_digests(tmp_path / 'a') == outputs
  path = tmp_path / 'a/manifest.json'  # as they were written once
  older = files.read_json(path)
  del older['saved']
  files.write_json(path, older)
  assert pipeline.run_pipeline(config, str(tmp_path)) and len(ran) == 3


def test_a_file_of_a_stage_that_is_gone_changes_no_result(
    tmp_path, monkeypatch, capsys):
  """Whatever it is, it is made again, or the stage begins anew."""
  _writes_records(monkeypatch)
  pipeline.run_pipeline(_config(), str(tmp_path))
  whole = _manifests(tmp_path)
  for name, said in (
      ('summary.json', 'b (to be resumed, summary.json lost)'),
      ('config.json', 'b (to be resumed, config.json lost)'),
      ('manifest.json', 'b (to be resumed)'), ('begun.json', 'b  done'),
      ('', 'b (new)')):
    path = tmp_path / 'b' / name
    (path.unlink if name else lambda: shutil.rmtree(path))()
    capsys.readouterr()
    assert pipeline.run_pipeline(_config(), str(tmp_path))
    assert said in capsys.readouterr().out and _manifests(tmp_path) == whole
    assert not list(tmp_path.glob('*.old*'))
  (tmp_path / 'b/config.json').write_text('{"half')
  with pytest.raises(errors.ConfigError, match='b/config.json: expected a wh'):
    pipeline.run_pipeline(_config(), str(tmp_path))
  (tmp_path / 'b/config.json').unlink()  # as it says
  assert pipeline.run_pipeline(_config(), str(tmp_path))
  assert _manifests(tmp_path) == whole
  for name in ('begun.json', 'manifest.json'):  # what was it made of?
    (tmp_path / 'b' / name).unlink()
  ran.clear()
  assert pipeline.run_pipeline(_config(), str(tmp_path)) and ran == list('bb')
  assert 'b  changed: begun.json is gone' in capsys.readouterr().out
  assert _manifests(tmp_path) == whole and (tmp_path / 'b.old1').exists()


def test_without_begun_json_a_changed_input_is_noticed(tmp_path):
  pipeline.run_pipeline(_config(), str(tmp_path))
  (tmp_path / 'b/begun.json').unlink()
  config = _config()
  config.stages.a.value = 5
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert _number(tmp_path, 'b') == 12 and (tmp_path / 'b.old1').exists()


@pytest.mark.parametrize('damage, said', [
    (b'', 'to be resumed, records.jsonl lost'),
    (b'{}\n{"half', 'to be resumed, records.jsonl lost'),
    (b'{}\n\n', 'done, records.jsonl edited (2 rows, 1 when it ended)'),
    (b'{"a": 1}', 'done, records.jsonl edited (1 rows, 1 when it ended)'),
    (b'no JSON\n', 'done, records.jsonl edited (1 rows, 1 when it ended)')])
def test_an_output_that_is_cut_is_lost_and_one_that_is_edited_is_said(
    tmp_path, monkeypatch, capsys, damage, said):
  _writes_records(monkeypatch)
  config = _config()
  config.until = 'a'
  pipeline.run_pipeline(config, str(tmp_path))
  before = _records(tmp_path, 'a').read_bytes()
  _records(tmp_path, 'a').write_bytes(damage)
  capsys.readouterr()
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert f'a  {said}' in capsys.readouterr().out
  assert _records(tmp_path, 'a').read_bytes() == (
      before if 'lost' in said else damage)


def test_metrics_of_a_stage_that_are_gone_are_said(tmp_path, capsys):
  config = _config()
  config.until = 'a'
  pipeline.run_pipeline(config, str(tmp_path))
  (tmp_path / 'a/metrics.jsonl').unlink()
  capsys.readouterr()
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert 'a  done, metrics.jsonl gone\n' in capsys.readouterr().out


def test_a_template_that_has_changed_begins_a_stage_anew(tmp_path, capsys):
  """But a stage that began before such files were recorded is as it was."""
  template = tmp_path / 'template.txt'
  template.write_text('{prompt}')
  config = _config()
  config.stages.b.data = dict(template=str(template))
  workdir = tmp_path / 'graph'
  pipeline.run_pipeline(config, str(workdir))
  template.write_text('Q: {prompt}')
  path = workdir / 'b/begun.json'
  known = path.read_text()
  path.write_text(json.dumps(
      {k: v for k, v in json.loads(known).items() if k != 'named'}))
  ran.clear()
  assert pipeline.run_pipeline(config, str(workdir)) and not ran
  path.write_text(known)
  assert pipeline.run_pipeline(config, str(workdir)) and ran == list('bb')
  assert f'b  changed: {template} has changed' in capsys.readouterr().out


def test_a_damaged_checkpoint_names_its_stage_which_is_then_resumed(
    tmp_path, monkeypatch, capsys):
  """It is noticed where it is read: its digest is that of its manifest."""
  def build(stage, mesh, workdir):
    if stage.name == 'b' and damaged:
      error = model_source.Damaged('init_from', 'it is damaged')
      error.path = tmp_path / 'a/checkpoints/2'
      with errors.section('init_from', at='critic.init_from'):
        raise error
    return _build(stage, mesh, workdir)

  config = _config()
  config.until = 'a'
  pipeline.run_pipeline(config, str(tmp_path))
  before, damaged = files.read_json(tmp_path / 'a/manifest.json'), True
  config.until = 'b'
  monkeypatch.setattr(sys.modules['toy_stage'], 'build', build)
  with pytest.raises(errors.ConfigError, match='stages.b.critic.init_from: it'):
    pipeline.run_pipeline(config, str(tmp_path))
  assert 'stage a is then resumed' in capsys.readouterr().out
  damaged = False
  ran.clear()
  assert pipeline.run_pipeline(config, str(tmp_path)) and ran == list('abb')
  after = files.read_json(tmp_path / 'a/manifest.json')
  assert after['outputs'] == before['outputs']
  assert (tmp_path / 'a/checkpoints/damaged-2').is_dir()


def _writes_records(monkeypatch):
  """At a stage's end, as collect does."""
  def build(config, mesh, workdir):
    def finish(summary):
      _records(pathlib.Path(workdir), '.').write_text('{}\n')
      return str(summary['steps'])
    return _build(config, mesh, workdir)._replace(finish=finish)
  monkeypatch.setattr(sys.modules['toy_stage'], 'build', build)


def test_no_file_is_read_twice(tmp_path, monkeypatch):
  (tmp_path / 'rows.jsonl').write_text('{}\n')
  config, opened = _config(), []
  for name in 'abc':
    config.stages[name].data = dict(task=f'jsonl:{tmp_path}/rows.jsonl')
  digest = digests.hashlib.file_digest
  monkeypatch.setattr(digests.hashlib, 'file_digest', lambda file, kind: (
      opened.append(file.name) or digest(file, kind)))
  assert pipeline.run_pipeline(config, str(tmp_path / 'graph'))
  assert opened.count(f'{tmp_path}/rows.jsonl') == 1
  assert len(opened) == len(set(opened))


def test_what_is_to_be_set_is_said_before_anything_runs(tmp_path, capsys):
  config = _config()
  config.stages.c.init_from = config_dict.placeholder(str)
  config.stages.c.data = dict(
      task=(('jsonl:{a}/x.jsonl', .5), ('jsonl:/no/{split}.jsonl', .5)),
      options=dict(verifier='judge'))
  config.stages.c.rewards = dict(judge=reward_sections.judge())
  config.dry_run = True
  assert not pipeline.run_pipeline(config, str(tmp_path))
  out = capsys.readouterr().out
  for field in ('init_from: is not set',
                'rewards.judge.init_from: is not set',
                'data.task: no such file: /no/{split}.jsonl'):
    assert f'config.stages.c.{field}' in out
  assert out.count('config.stages.') == 3
  config.dry_run = False
  with pytest.raises(errors.ConfigError,
                     match='config.stages.c.init_from: is not set'):
    pipeline.run_pipeline(config, str(tmp_path))
  assert not ran
  config.until = 'b'  # and what is left out may lack anything
  assert pipeline.run_pipeline(config, str(tmp_path))


def _missing(stage):
  """What graph.find_missing says of a stage, the fields alone."""
  config = common.pipeline(None, dict(x=stage))
  node, = graph.nodes(config, pathlib.Path('/'))
  return [error.field.removeprefix('stages.x.')
          for error in graph.find_missing(node, ['x'])
          if error.message == 'is not set']


def test_every_model_that_is_not_named_is_said():
  config = ppo.mini()
  config.rewards.judge = reward_sections.judge()
  assert config.critic.init_from is None  # the policy's own
  assert _missing(config) == [
      'init_from', 'rewards.models.preference.init_from']
  config = distill.mini(teaching='forward')
  assert sorted(_missing(config)) == ['data.task', 'distill.init_from']
  config = pretrain.get_config('mini')
  assert config.init_from is None and not _missing(config)
  config = mcts.search('mini', None)  # no value leads it
  assert config.search.init_from is None and not _missing(config)
  config = pretrain.get_config('mini').unlock()
  config.data.template = 'mini'
  assert _missing(config) == ['init_from']


def test_a_model_of_several_stages_is_named_once(tmp_path, capsys):
  config = common.pipeline(
      None, dict(a=_stage('a'), b=_stage('b')), ('base',))
  for stage in config.stages.values():
    stage.init_from = '{base}'
  config.dry_run = True
  assert not pipeline.run_pipeline(config, str(tmp_path))
  assert capsys.readouterr().out.count('config.models.base: is not set') == 1
  config.models.base = 'mini'
  assert [node.config['init_from'] for node in graph.nodes(
      config, tmp_path)] == ['mini'] * 2
  pipeline.run_pipeline(config, str(tmp_path))
  assert 'models' not in capsys.readouterr().out
  config.stages.a.init_from = '{bace}'
  with pytest.raises(errors.ConfigError, match='bace} is not a stage'):
    pipeline.run_pipeline(config, str(tmp_path))


def test_a_model_that_is_not_there_is_said_beforehand(tmp_path, capsys):
  config = _config()
  config.stages.b.init_from = str(tmp_path / 'nothing')
  config.stages.c.init_from = '{a}/checkpoints/2'
  config.dry_run = True
  pipeline.run_pipeline(config, str(tmp_path))
  out = capsys.readouterr().out
  assert f'config.stages.b.init_from: {tmp_path}/nothing is not there' in out
  assert 'config.stages.c' not in out


def test_what_is_refused_before_its_first_step_changes_nothing(
    tmp_path, monkeypatch, capsys):
  pipeline.run_pipeline(_config(), str(tmp_path))
  whole = _manifests(tmp_path)
  build = sys.modules['toy_stage'].build

  def refuse(config, mesh, workdir):
    if config.name == 'b' and config.value > 1:
      raise errors.expected('value', 'no more than 1', config.value)
    return build(config, mesh, workdir)
  monkeypatch.setattr(sys.modules['toy_stage'], 'build', refuse)
  config = _config()
  config.stages.b.value = 7
  for folder in (tmp_path, tmp_path / 'new'):
    with pytest.raises(errors.ConfigError,
                       match='config.stages.b.value: expected no more'):
      pipeline.run_pipeline(config, str(folder))
    ran.clear()
    assert pipeline.run_pipeline(_config(), str(folder))
    assert not list(folder.glob('*.old*'))
    assert ran == ([] if folder == tmp_path else list('bbcc'))
  assert _manifests(tmp_path) == whole
  assert f'are in {tmp_path}/b again' in capsys.readouterr().out


@pytest.mark.parametrize('error, said', [
    (errors.ConfigError('optim.lr', 'too high beside config.eval.batch'),
     'config.stages.a.optim.lr: too high beside config.stages.a.eval.batch'),
    (errors.ConfigError('--workdir', 'holds another run: config.steps (2, 3)'),
     '--workdir: holds another run: config.stages.a.steps (2, 3)'),
    (errors.ConfigError('', '/config.eval/config.json: none; config.models.x'),
     '/config.eval/config.json: none; config.models.x'),
    (logger.Diverged('lower config.optim.lr, or --config.optim.clip_norm=1'),
     'lower config.stages.a.optim.lr, or --config.stages.a.optim.clip_norm=1'),
    (workers.LoadError('fewer (config.rewards.workers) need less'),
     'a worker could not start: fewer (config.rewards.workers) need less')])
def test_errors_inside_a_stage_name_fields_that_can_be_set(
    tmp_path, monkeypatch, error, said):
  def build(config, mesh, workdir):
    def step(*_):
      raise error
    return _build(config, mesh, workdir)._replace(step=step)
  monkeypatch.setattr(sys.modules['toy_stage'], 'build', build)
  with pytest.raises(type(error)) as caught:
    pipeline.run_pipeline(_config(), str(tmp_path))
  # What the loop says of a divergence comes after it.
  assert str(caught.value).partition('; no state')[0] == said
  assert 'config.optim' not in str(caught.value)


def test_a_judge_is_needed_where_a_verifier_is_one():
  config = rejection_sampling.get_config('mini').unlock()
  config.init_from = 'mini'
  for options in (dict(verifier='judge'), {'0': {}, '1': dict(
      verifier='judge')}):
    config.data.options = options
    assert _missing(config) == ['rewards.judge.init_from']
  config.rewards.judge.url = 'http://localhost/v1'
  assert not _missing(config)
  config.rewards.judge.url = None
  config.data.options = {'1': dict(verifier='exact')}
  assert not _missing(config)


def test_examples_are_needed_where_they_are_to_be_shown():
  config = rejection_sampling.get_config('mini').unlock()
  config.init_from = 'mini'
  config.data.shots = 1
  assert _missing(config) == ['data.examples']
  config = r1.shots('mini')
  config.tests.shots_4.data.examples = None
  config.tests.shots_0.data.update(examples=None, task=None)
  assert sorted(_missing(config)) == [
      'tests.shots_0.data.task', 'tests.shots_4.data.examples']


@pytest.mark.parametrize('field, value, message', [
    ('init_from', '{aa}', r'init_from: {aa} is not a stage; did you mean a\?'),
    ('init_from', '{a-b}/checkpoints/2', 'init_from: {a-b} is not'),
    ('critic', dict(init_from='{d}'), 'critic.init_from: {d} is not a stage'),
    ('data', dict(task='drafts:jsonl:{d}/{split}.jsonl'), 'data.task: {d} is'),
    ('data', dict(task=(('mini_general', .5), ('jsonl:{d}/x', .5))),
     'data.task: {d} is not a stage; valid: a, b, c')])
def test_what_is_no_stage_is_refused_with_the_nearest(
    tmp_path, field, value, message):
  config = _config()
  config.stages.c[field] = value
  config.dry_run = True
  with pytest.raises(errors.ConfigError,
                     match='config.stages.c.' + message):
    pipeline.run_pipeline(config, str(tmp_path))
  config = _config()
  config.stages.c.data = dict(instruction='in {braces}, {split}')
  pipeline.run_pipeline(config, str(tmp_path))  # which are no one's place


def test_until_runs_what_it_needs_and_no_strangers(tmp_path):
  config = _config()
  config.stages.b.inputs = {}
  config.stages.c.inputs = dict(b='{b}')
  config.until = 'c'
  assert pipeline.run_pipeline(config, str(tmp_path)) and ran == list('bbcc')
  config = r1.get_config('mini')
  config.until = 'collected'
  chosen = graph.choose(config, graph.nodes(config, tmp_path))
  assert sorted(node.name for node in chosen) == [
      'collected', 'few_shot', 'instructed', 'refined', 'zero', 'zero_samples']
  done = set()
  for node in chosen:
    assert done.issuperset(node.inputs)
    done.add(node.name)


def test_an_unchanged_outcome_reruns_nothing_further(tmp_path):
  pipeline.run_pipeline(_config(), str(tmp_path))
  ran.clear()
  config = _config()
  config.stages.b.log.tensorboard = True  # reaches no parameter
  assert pipeline.run_pipeline(config, str(tmp_path)) and not ran


@pytest.mark.parametrize('name, at', [
    ('a', 0), ('c', 1), *(pytest.param(*place, marks=pytest.mark.slow)
                          for place in (('a', 1), ('b', 0), ('b', 1), ('c', 0)))])
def test_interrupted_anywhere_it_ends_with_the_same_manifests(
    tmp_path, monkeypatch, name, at):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  config = _config()
  pipeline.run_pipeline(config, str(whole))
  crash = _build

  def build(stage, mesh, workdir):
    if stage.name == name:
      stage = ml_collections.ConfigDict(stage.to_dict() | dict(fails_at=at))
    return crash(stage, mesh, workdir)

  monkeypatch.setattr(sys.modules['toy_stage'], 'build', build)
  with pytest.raises(Crash):
    pipeline.run_pipeline(config, str(parts))
  monkeypatch.setattr(sys.modules['toy_stage'], 'build', crash)
  ran.clear()
  assert pipeline.run_pipeline(config, str(parts))
  assert len(ran) == 6 - 2 * 'abc'.index(name) - at  # only what was missing
  assert _outputs(parts) == _outputs(whole)


def _outputs(workdir):
  return {name: (m['outputs'], m['inputs'], m['figures'], m['steps'])
          for name, m in _manifests(workdir).items()}


def test_other_code_is_said_and_makes_nothing_begin_anew(
    tmp_path, monkeypatch, capsys):
  pipeline.run_pipeline(_config(), str(tmp_path))
  before = _manifests(tmp_path)
  assert [m['code'] for m in before.values()] == [[digests.of_code()]] * 3
  monkeypatch.setattr(digests, 'of_code', lambda: 'other')
  capsys.readouterr()
  pipeline.run_pipeline(_config(), str(tmp_path))
  assert 'a  done, by another version of the code' in capsys.readouterr().out
  assert _manifests(tmp_path) == before


def test_every_code_that_worked_on_a_stage_is_known(
    tmp_path, monkeypatch, capsys):
  config = _config()
  config.stages.b.steps = 3
  crash = _build

  def build(stage, mesh, workdir):
    if stage.name == 'b':
      stage = ml_collections.ConfigDict(
          stage.to_dict() | dict(fails_at=fails_at))
    return crash(stage, mesh, workdir)

  monkeypatch.setattr(sys.modules['toy_stage'], 'build', build)
  for code, fails_at in (('first', 1), ('second', 2), ('second', 2)):
    monkeypatch.setattr(digests, 'of_code', lambda code=code: code)
    with pytest.raises(Crash):
      pipeline.run_pipeline(config, str(tmp_path))
  out = capsys.readouterr().out
  assert out.count('b (to be resumed, by another version of the code)') == 1
  assert out.count('b (to be resumed)') == 1
  fails_at = -1
  monkeypatch.setattr(digests, 'of_code', lambda: 'third')
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert [m['code'] for m in _manifests(tmp_path).values()] == [
      ['first'], ['first', 'second', 'third'], ['third']]
  config.stages.b.value = 5  # anew: no other has worked on it
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert _manifests(tmp_path)['b']['code'] == ['third']


def test_a_begun_json_of_one_code_is_read(tmp_path):
  """As they were written once."""
  pipeline.run_pipeline(_config(), str(tmp_path))
  path = tmp_path / 'c' / 'begun.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | dict(code='old')))
  (tmp_path / 'c' / 'manifest.json').unlink()
  assert pipeline.run_pipeline(_config(), str(tmp_path))
  assert _manifests(tmp_path)['c']['code'] == ['old', digests.of_code()]


def test_only_until_and_dry_run(tmp_path, capsys):
  config = _config()
  config.dry_run = True
  assert not pipeline.run_pipeline(config, str(tmp_path)) and not ran
  assert 'c  waits for a, b' in capsys.readouterr().out
  config.update(dry_run=False, until='b')
  assert pipeline.run_pipeline(config, str(tmp_path)) and ran == list('aabb')
  config.update(until=None, only='c')
  assert pipeline.run_pipeline(config, str(tmp_path)) and ran == list('aabbcc')
  config.only = 'd'
  with pytest.raises(errors.ConfigError, match='config.only'):
    pipeline.run_pipeline(config, str(tmp_path))
  config.only = 'c'
  with pytest.raises(errors.ConfigError,
                     match='waits for a, b; --config.until=c runs'):
    pipeline.run_pipeline(config, str(tmp_path / 'other'))
  config.until = 'b'
  with pytest.raises(errors.ConfigError, match='nothing beside'):
    pipeline.run_pipeline(config, str(tmp_path))


def test_more_steps_go_on_and_reach_those_who_depend(tmp_path):
  pipeline.run_pipeline(_config(), str(tmp_path))
  ran.clear()
  config = _config()
  config.stages.a.steps = 3
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert ran == list('abbcc') and _number(tmp_path, 'a') == 3


def test_interrupted_while_it_goes_on_it_is_not_done(tmp_path, monkeypatch):
  """And with its first number of steps again it begins anew."""
  pipeline.run_pipeline(_config(), str(tmp_path))
  config = _config()
  config.stages.a.update(steps=4, fails_at=3)
  kept = _config().stages.a.to_dict()
  monkeypatch.setattr(
      resuming, 'changed', lambda old, new, *free: _changed(
          {**old, 'fails_at': -1}, {**new, 'fails_at': -1}))
  with pytest.raises(Crash):
    pipeline.run_pipeline(config, str(tmp_path))
  ran.clear()
  config.stages.a.update(kept)
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert ran == list('aa') and _number(tmp_path, 'a') == 2


_changed = resuming.changed


def test_references_in_lists_are_found_and_reports_known(tmp_path):
  config = _config()
  config.stages.a.unlock()
  config.stages.a.data = dict(task=(('jsonl:{b}/x.jsonl', 1.),))
  config.stages.b.inputs = {}
  config.stages.c.inputs = {}
  nodes = graph.nodes(config, tmp_path)
  assert nodes[-1].name == 'a' or nodes[1].name == 'a'
  first = next(node for node in nodes if node.name == 'a')
  assert first.inputs == ('b',)
  assert graph.resolve(first, nodes).data.task[0][0] == (
      f'jsonl:{tmp_path}/b/x.jsonl')
  config.report = 'rlfh'
  with pytest.raises(errors.ConfigError, match='config.report'):
    pipeline.run_pipeline(config, str(tmp_path))


def test_gin_bindings_are_a_part_of_every_config(tmp_path):
  pipeline.run_pipeline(_config(), str(tmp_path), 'a = 1')
  ran.clear()
  assert pipeline.run_pipeline(_config(), str(tmp_path), 'a = 1') and not ran
  assert pipeline.run_pipeline(_config(), str(tmp_path), 'a = 2') and len(ran) == 6


def test_mistakes_name_the_stage_before_anything_runs(tmp_path):
  config = _config()
  config.stages.c.optim.lr = -1.
  with pytest.raises(errors.ConfigError, match=r'config.stages.c.optim.lr'):
    pipeline.run_pipeline(config, str(tmp_path))
  config = _config()
  config.stages.a.inputs = dict(c='{c}')
  with pytest.raises(errors.ConfigError, match='each waits for another'):
    pipeline.run_pipeline(config, str(tmp_path))
  config = _config()
  config.stages.a.stage = 'tou'
  with pytest.raises(errors.ConfigError, match='config.stages.a.stage'):
    pipeline.run_pipeline(config, str(tmp_path))
  assert not ran


def test_a_seed_is_that_of_every_stage(tmp_path):
  config = _config()
  config.seed = 7
  pipeline.run_pipeline(config, str(tmp_path))
  assert {m['config']['seed'] for m in _manifests(tmp_path).values()} == {7}


def test_the_pipeline_of_rlhf_is_a_graph_whose_stages_are_valid(tmp_path):
  nodes = graph.nodes(rlhf.get_config('mini'), tmp_path)
  names = [node.name for node in nodes]
  assert names.index('reward_model') < names.index('ppo')
  for node in nodes:
    resolved = graph.resolve(node, nodes)
    config_lib.check(resolved, 1)
    assert str(tmp_path) in str(resolved) or node.name == 'sft'
