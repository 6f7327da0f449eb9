"""What a config only names: a change of any of it is seen, of nothing else."""

import json
import os
import pathlib

import pytest

from r1jax import errors
from r1jax.data import json_lines
from r1jax.data import templates
from r1jax.data import user_code
from r1jax.stages import inputs
from r1jax.training import record

# The field of a config, what it says, and the files that are behind it.
CASES = {
    'file': ('data.task', 'jsonl:{0}/a.jsonl', ['a.jsonl']),
    'of a mixture': (
        'data.task', (('mini_reasoning', .5), ('jsonl:{0}/a.jsonl', .5)),
        ['a.jsonl']),
    'drafts': ('data.task', 'drafts:jsonl:{0}/a.jsonl', ['a.jsonl']),
    'several': ('data.task', 'jsonl:{0}/*.jsonl', ['a.jsonl', 'b.jsonl']),
    'splits': ('data.task', 'jsonl:{0}/{{split}}.jsonl',
               ['train.jsonl', 'test.jsonl']),
    'of a name like a pattern': (
        'data.task', 'jsonl:{0}/a[1].jsonl', ['a[1].jsonl']),
    'of a test': ('tests.first.data.task', 'jsonl:{0}/a.gz', ['a.gz']),
    'collected': ('collect.part.task', 'jsonl:{0}/a.parquet', ['a.parquet']),
    'examples': ('data.examples', 'jsonl:{0}/a.jsonl', ['a.jsonl']),
    'code': ('data.task', '{0}/own.py:rows', ['own.py', 'beside.py']),
    'reward': ('rewards.functions.mine', '{0}/own.py:f', ['own.py']),
    'module': ('rewards.functions.mine', 'apart.deep:f', ['apart/deep.py']),
    'option': ('data.options.0.path', '{0}/a.csv', ['a.csv']),
    'template': ('tests.first.data.template', '{0}/t.jinja', ['t.jinja']),
    'tokenizer': ('vocab.path', '{0}/model', [
        'model/tokenizer.json', 'model/chat_template.jinja',
        'model/special_tokens_map.json', 'model/added_tokens.json']),
    'tokenizer file': ('vocab.path', '{0}/model/tokenizer.model', [
        'model/tokenizer.model', 'model/generation_config.json']),
    'GGUF vocabulary': ('vocab.path', '{0}/a.gguf', ['a.gguf']),
    'GGUF': ('rewards.judge.init_from', '{0}/a.gguf', ['a.gguf']),
    'npz': ('init_from', '{0}/a.npz', ['a.npz']),
    'released': ('rewards.models.one.init_from', '{0}/model', [
        'model/config.json', 'model/model-1.safetensors',
        'model/part/b.safetensors', 'model/model.safetensors.index.json',
        'model/tokenizer.json', 'model/special_tokens_map.json']),
    'stage': ('distill.init_from', '{0}/stage', [
        'stage/checkpoints/10/manifest/metadata', 'model/tokenizer.json',
        'stage/config.json']),
    'checkpoint': ('init_from', '{0}/stage/checkpoints/9', [
        'stage/checkpoints/9/manifest/metadata', 'model/tokenizer.json']),
    'stage of a stage': ('init_from', '{0}/second', ['model/tokenizer.json']),
    'TFDS': ('data.task', 'tfds:gsm8k/main:1.0.0', [
        'tfds/gsm8k/main/1.0.0/gsm8k-train.tfrecord']),
}
OTHERS = ('model/README.md', 'model/trainer_state.json', 'stage/metrics.jsonl',
          'stage/checkpoints/9/params', 'elsewhere.jsonl.old')


@pytest.fixture(name='folder')
def _folder(tmp_path, monkeypatch):
  for name in (*(name for _, _, names in CASES.values() for name in names),
               *OTHERS):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{}')
  (tmp_path / 'own.py').write_text('import json\nfrom beside import x\n')
  (tmp_path / 'model/model.safetensors.index.json').write_text(
      '{"weight_map": {"a": "model-1.safetensors", "b": "part/b.safetensors"}}')
  for name, parent in (('stage', 'model'), ('second', 'stage')):
    (tmp_path / name / 'checkpoints').mkdir(parents=True, exist_ok=True)
    (tmp_path / name / 'config.json').write_text(json.dumps(dict(
        model=dict(width=8), vocab=dict(kind='model'),
        init_from=str(tmp_path / parent))))
  monkeypatch.syspath_prepend(tmp_path)
  return tmp_path


def _config(folder, field, value):
  def put(value):
    if isinstance(value, str):
      return value.format(folder)
    return tuple((put(task), rate) for task, rate in value)
  config = dict(data=dict(split='test', options=dict(
      data_dir=f'{folder}/tfds')))
  *sections, name = field.split('.')
  section = config
  for part in sections:
    section = section.setdefault(part, {})
  section[name] = put(value)
  return config


@pytest.mark.parametrize('case', CASES)
def test_a_change_behind_a_name_is_seen(folder, case):
  field, value, names = CASES[case]
  config = _config(folder, field, value)
  before = inputs.digests(config)
  json.dumps(before)
  for name in names:
    path = folder / name
    was = path.read_text()
    if name.endswith('stage/config.json'):
      path.write_text(was.replace('"width": 8', '"width": 9'))
    else:
      path.write_text(was + ' ')
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))  # however fast
    found, = record.changes(before, inputs.digests(config))
    assert found.endswith(' has changed')
    assert path.name in found or 'checkpoints' in found
    path.write_text(was)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 2))
  assert not record.changes(before, inputs.digests(config))
  for name in OTHERS:
    (folder / name).write_text('other')
  assert not record.changes(before, inputs.digests(config))


def test_packages_beside_a_function_are_seen(tmp_path, monkeypatch):
  texts = {'rew.py': 'from lib.deep import helper', 'lib/__init__.py': '',
           'lib/deep/helper.py': '', 'pk/__init__.py': '',
           'pk/r.py': 'from . import h', 'pk/h.py': '', 'other/no.py': ''}
  for name, text in texts.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  seen = lambda place: {
      str(pathlib.Path(path).relative_to(tmp_path))
      for path in inputs.digests(dict(data=dict(task=place)))[place]}
  assert seen(f'{tmp_path}/rew.py:f') == {
      'rew.py', 'lib/__init__.py', 'lib/deep/helper.py'}
  assert seen('pk.r:f') == {'pk/r.py', 'pk/h.py', 'pk/__init__.py'}


def test_files_that_come_and_go_are_seen(folder):
  config = _config(folder, 'data.task', 'jsonl:{0}/*.jsonl')
  (folder / 'z.jsonl').mkdir()  # no file: what reads it refuses it
  before = inputs.digests(config)
  (folder / 'c.jsonl').write_text('{}')
  (folder / 'a.jsonl').unlink()
  assert record.changes(before, inputs.digests(config)) == [
      f'{folder}/a.jsonl is gone', f'{folder}/c.jsonl is new']
  config = _config(folder, 'vocab.path', '{0}/model')
  before = inputs.digests(config)
  (folder / 'model/tokenizer_config.json').write_text('{}')
  assert record.changes(before, inputs.digests(config)) == [
      f'{folder}/model/tokenizer_config.json is new']


def test_what_an_earlier_version_did_not_record_is_not_new(folder, tmp_path):
  config = _config(folder, 'init_from', '{0}/model')
  (folder / 'model/added_tokens.json').unlink()
  (name, now), = inputs.digests(config).items()
  later = ('special_tokens_map.json', 'added_tokens.json',
           str(folder / 'model/part/b.safetensors'))
  workdir = tmp_path / 'old'
  workdir.mkdir()
  record.update(workdir, 'inputs', {
      name: {file: now[file] for file in now.keys() - set(later)}})
  record.check_inputs(workdir, {name: now})  # and are recorded from then on
  assert record.read(workdir)['inputs'] == {name: now}
  (folder / 'model/special_tokens_map.json').unlink()
  for file in ('added_tokens.json', 'part/b.safetensors'):
    (folder / 'model' / file).write_text('{"a": 1}')
  with pytest.raises(errors.ConfigError) as refused:
    record.check_inputs(workdir, inputs.digests(config))
  for words in ('added_tokens.json is new', 'part/b.safetensors has changed',
                'special_tokens_map.json is gone'):
    assert f'{folder}/model/{words}' in str(refused.value)


@pytest.mark.parametrize('field, value', [
    ('data.task', 'mini_reasoning'), ('data.task', 'reasoning_gym:chain_sum'),
    ('init_from', 'mini'), ('init_from', 'nowhere'), ('vocab.path', 'mini'),
    ('data.template', 'r1_zero'), ('data.instruction', 'see a.b:c'),
    ('data.task', 'no.such.module:f'), ('data.task', 'own.pi:f'),
    ('init_from', '{{sft}}'), ('rewards.judge.url', 'http://host/v1')])
def test_nothing_outside_is_no_input(folder, monkeypatch, field, value):
  monkeypatch.chdir(folder)
  assert not any(inputs.digests(_config(folder, field, value)).values())


def test_of_large_weights_header_parts_and_size_are_read(tmp_path):
  path, size = tmp_path / 'a.safetensors', 1 << 30
  (tmp_path / 'config.json').write_text('{}')
  header = b'{"w": 1}'
  path.write_bytes(len(header).to_bytes(8, 'little') + header)
  os.truncate(path, size)
  config = dict(init_from=str(tmp_path))

  def digest():
    return inputs.digests(config)[str(tmp_path)][path.name]

  found = {digest()}
  for place in (9, 16, size - 1, 16 + (size - 16 - (1 << 14)) // 63):
    with open(path, 'r+b') as file:
      file.seek(place)
      file.write(b'\1')
    found.add(digest())
  assert len(found) == 5
  for size in (1 << 30, (1 << 30) + 1):  # of zeros alone
    os.truncate(path, 0)
    os.truncate(path, size)
    found.add(digest())
  assert len(found) == 7


def test_a_home_directory_may_be_written_short(folder, monkeypatch):
  monkeypatch.setenv('HOME', str(folder))
  (folder / 'a.jsonl').write_text('{"text": "x"}\n')
  assert json_lines.paths('~/a.jsonl', 'train') == [folder / 'a.jsonl']
  (folder / 't.txt').write_text('Q: {prompt}')
  assert templates.apply('~/t.txt', '1') == 'Q: 1'
  (folder / 'own.py').write_text('def f(): pass\n')
  assert user_code.load('~/own.py:f', 'data.task').__name__ == 'f'
  for field, text in (('data.task', 'jsonl:~/a.jsonl'),
                      ('data.task', '~/own.py:f'), ('vocab.path', '~/model'),
                      ('data.template', '~/t.jinja')):
    found = inputs.digests(_config(folder, field, text))
    assert sum(map(bool, found.values())) == 1


def test_what_a_run_began_with_is_kept_and_compared(tmp_path):
  known = {'/x/rows.jsonl': {'/x/rows.jsonl': '1'}, 'm': {'w': '2'}}
  record.update(tmp_path, 'surroundings', {'cores': 2})
  record.check_inputs(tmp_path, {'m': known['m']})  # from then on
  record.check_inputs(tmp_path, known)  # as a later version finds more
  record.check_inputs(tmp_path, {})  # a stage of a pipeline
  record.check_inputs(tmp_path, known | {'m': {}})  # not there: not its affair
  assert json.loads((tmp_path / record.NAME).read_text()) == {
      'surroundings': {'cores': 2}, 'inputs': known}
  with pytest.raises(errors.ConfigError) as refused:
    record.check_inputs(tmp_path, known | {'m': {'w': '3'}})
  assert str(refused.value) == (
      f'--workdir: {tmp_path} holds a run that read other files: m/w has '
      'changed; restore them as they were, or give another --workdir')
  assert record.update(tmp_path, 'inputs', known) == known


def test_where_a_run_started_may_go_on_once_it_has_a_checkpoint(tmp_path):
  known = {'sft': {record.START: '1', 'config.json': '2'}}
  record.check_inputs(tmp_path, known)
  other = {'sft': known['sft'] | {record.START: '3'}}
  with pytest.raises(errors.ConfigError, match='sft/checkpoints'):
    record.check_inputs(tmp_path, other)
  (tmp_path / 'checkpoints/5').mkdir(parents=True)
  record.check_inputs(tmp_path, other)
  with pytest.raises(errors.ConfigError, match='sft/config.json'):
    record.check_inputs(tmp_path, {'sft': {'config.json': '4'}})


def test_a_training_stage_reads_where_it_starts_only_once(folder):
  config = _config(folder, 'init_from', '{0}/stage')
  name = str(folder / 'stage')
  assert 'checkpoints' in inputs.digests(config)[name]  # to sample from
  assert record.START in inputs.digests(config | dict(optim={}))[name]
