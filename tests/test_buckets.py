"""What is read of buckets: copied once, whole, and only what is needed."""

import json
import os
import pathlib
import sys

import ml_collections
import pytest

import memory_bucket
from r1jax import buckets
from r1jax import errors
from r1jax import objects
from r1jax import workdir
from r1jax.data import json_lines
from r1jax.stages import inputs
from r1jax.stages import model_source

URL = memory_bucket.URL
_SAVED = {f'checkpoints/{step}/{name}': f'{step} {name}'.encode()
          for step in (9, 10) for name in (
              'params/d/1', 'rest/d/1', 'manifest/metadata',
              'commit_success.txt')}
_RUN = _SAVED | {
    'config.json': b'{"stage": "sft"}', 'summary.json': b'{"steps": 10}',
    'rollouts.jsonl': b'{}\n', 'checkpoints/11/params/d/1': b'not committed'}


@pytest.fixture(name='machine', autouse=True)
def _machine(monkeypatch, tmp_path):
  return memory_bucket.install(monkeypatch, tmp_path)


@pytest.fixture(name='read')
def _read(monkeypatch):
  """The names of the objects that were copied."""
  read, kind = [], memory_bucket.kind_of()
  def get_file(self, path, *args, _do=kind.get_file, **kw):
    read.append(path.partition('bucket/run/')[2])
    return _do(self, path, *args, **kw)
  monkeypatch.setattr(kind, 'get_file', get_file)
  return read


def _again():
  """As another process of this machine."""
  buckets._model.cache_clear()
  buckets._matching.cache_clear()


def _tree(folder):
  folder = pathlib.Path(folder)
  return {path.relative_to(folder).as_posix(): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


def test_of_a_run_its_model_is_copied_without_moments_and_rows(read):
  memory_bucket.put(_RUN)
  copied = {'config.json', 'summary.json'} | {
      name for name in _SAVED if '/10/' in name and '/rest/' not in name}
  assert _tree(buckets.model(URL)) == {name: _RUN[name] for name in copied}
  assert sorted(read) == sorted(copied)
  buckets.model(f'{URL}/')
  _again()
  buckets.model(URL)
  assert len(read) == len(copied)  # no one twice


def test_what_has_changed_since_is_copied_and_what_is_gone_is_not_there(read):
  memory_bucket.put(_RUN)
  buckets.model(URL)
  _again()
  later = {name.replace('/10/', '/12/'): content
           for name, content in _RUN.items() if '/9/' not in name}
  memory_bucket.put(later | {'config.json': b'{"stage": "rl"}'})
  folder = pathlib.Path(buckets.model(URL))
  assert (folder / 'config.json').read_bytes() == b'{"stage": "rl"}'
  assert [path.name for path in (folder / 'checkpoints').iterdir()] == ['12']


def test_one_checkpoint_may_be_named():
  memory_bucket.put(_RUN)
  path = pathlib.Path(buckets.model(f'{URL}/checkpoints/9'))
  assert path.parts[-2:] == ('checkpoints', '9')
  assert (path / 'params/d/1').read_bytes() == b'9 params/d/1'
  assert (path.parents[1] / 'config.json').exists()
  assert buckets.named(path) == f'{URL}/checkpoints/9'


def test_a_published_model_is_copied_whole_and_a_file_is_a_file():
  memory_bucket.put({'config.json': b'{}', 'a.safetensors': b'a',
                     'tokenizer/x': b'x', 'model.gguf': b'gguf'})
  assert _tree(buckets.model(URL)).keys() == {
      'config.json', 'a.safetensors', 'tokenizer/x', 'model.gguf'}
  path = pathlib.Path(buckets.model(f'{URL}/model.gguf'))
  assert path.suffix == '.gguf' and path.read_bytes() == b'gguf'


def test_rows_are_those_of_the_files_of_a_pattern(monkeypatch, machine):
  monkeypatch.setattr(objects, 'BLOCK', 10)
  memory_bucket.put({
      'kept-00001.jsonl': b'{"a": 1}\n{', 'kept-00001.jsonl.part-0001':
      b'"a": 2}\n', 'kept-00000.jsonl': b'{"a": 0}\n', 'below/kept-2.jsonl':
      b'{"a": 9}\n', 'other.jsonl': b'{"a": 8}\n'})
  rows = lambda: [row['a'] for _, row in json_lines.read_rows(
      f'{URL}/kept-*.jsonl', 'train')]
  assert rows() == [0, 1, 2]
  memory_bucket.put({'kept-00003.jsonl': b'{"a": 3}\n'})
  assert rows() == [0, 1, 2]  # the same for all of a process
  _again()
  assert rows() == [3]


def test_a_block_after_one_that_is_not_full_is_of_before_a_cut(monkeypatch):
  monkeypatch.setattr(objects, 'BLOCK', 4)
  sizes = {'a.jsonl': 4, 'a.jsonl.part-0001': 3, 'a.jsonl.part-0002': 4,
           'b.jsonl': 9, 'b.jsonl.part-0001': 4, 'c.part-0001': 1}
  assert objects.whole({name: objects.Object(size, '')
                        for name, size in sizes.items()}) == {
      'a.jsonl': ['a.jsonl', 'a.jsonl.part-0001'], 'b.jsonl': ['b.jsonl'],
      'c.part-0001': ['c.part-0001']}


def test_a_model_that_is_not_there_is_a_line():
  with pytest.raises(errors.ConfigError, match='there is no config.json in it'):
    model_source.find(f'{URL}/none')
  with pytest.raises(errors.ConfigError, match='no such file'):
    json_lines.paths(f'{URL}/none.jsonl', 'train')


def test_what_the_store_refuses_is_tried_again_and_then_a_line(monkeypatch):
  memory_bucket.put(_RUN)
  left = [2]
  def cat_file(self, path, *args, _do=memory_bucket.kind_of().cat_file, **kw):
    if left[0]:
      left[0] -= 1
      raise ConnectionResetError('the store has\nhung up')
    return _do(self, path, *args, **kw)
  monkeypatch.setattr(memory_bucket.kind_of(), 'cat_file', cat_file)
  folder = objects.Folder(URL)
  assert folder.read('config.json') == _RUN['config.json']
  assert folder.read('none') is None
  left[0] = 3
  with pytest.raises(errors.RunError) as caught:
    folder.read('config.json')
  assert str(caught.value) == (
      f'{URL} cannot be read: ConnectionResetError: the store has')
  def denied(*args, **kw):
    tried.append(args)
    raise PermissionError('AccessDenied')
  tried = []
  monkeypatch.setattr(memory_bucket.kind_of(), 'pipe_file', denied)
  with pytest.raises(errors.ConfigError, match=f'^--workdir: {URL} cannot be '
                     'written: PermissionError: AccessDenied'):
    workdir.check(URL)
  assert len(tried) == 1
  with pytest.raises(errors.RunError):
    folder.write('a', b'')
  assert len(tried) == 2  # at once, not for minutes


@pytest.mark.parametrize('url, said', [
    ('memory://', 'expected memory://BUCKET/NAME, received'),
    ('memory://bucket', 'expected memory://BUCKET/NAME'),
    ('memory:///run', 'expected memory://BUCKET/NAME'),
    ('memory://b/../run', 'expected memory://BUCKET/NAME'),
    ('memory://b//run', 'expected memory://BUCKET/NAME'),
    ('az://bucket/run', "gs://BUCKET/NAME or s3://BUCKET/NAME or memory://"),
    ('memory://b/q\udcff', 'UTF-8'),
])
def test_what_is_no_place_in_a_bucket_is_refused(url, said):
  with pytest.raises(errors.ConfigError, match='^--workdir: ') as caught:
    workdir.absolute(url)
  assert said in str(caught.value) and '\n' not in str(caught.value)


def test_what_a_command_writes_is_no_object():
  with pytest.raises(errors.ConfigError, match='^--out: expected a path of a '):
    workdir.expanded(f'{URL}/model', '--out')
  assert workdir.expanded(URL, '--workdir') == URL


def test_a_package_that_is_not_there_is_named(monkeypatch):
  monkeypatch.setitem(objects.PACKAGES, 's3', 'no_such_package')
  with pytest.raises(errors.ConfigError, match=r"pip install 'r1jax\[s3\]'"):
    workdir.check('s3://bucket/run')


def test_a_workdir_is_tried_and_left_as_it_was():
  memory_bucket.put({'a': b''})
  assert workdir.check(f'{URL}/') == workdir.absolute(URL) == URL
  assert memory_bucket.content() == {'a': b''}


def test_the_core_imports_nothing_of_a_bucket():
  assert not {'gcsfs', 's3fs', 'aiohttp', 'botocore'} & {
      name.partition('.')[0] for name in sys.modules} or any(
          'test_stores' in name for name in sys.modules)


@pytest.mark.parametrize('url', [
    'gs://bucket/run', 's3://a.b-c/d/e+f/g h%/ü', 'gs://b/a:b'])
def test_a_copy_has_the_name_of_what_it_is_of(url):
  for kind in ('runs', 'read'):
    place = buckets.place(kind, url)
    assert os.path.dirname(place) == os.path.join(
        os.environ['R1JAX_CACHE'], kind)
    assert buckets.named(place) == url
    assert buckets.named(place / 'a/b.jsonl') == f'{url}/a/b.jsonl'
  for path in ('/tmp/run', os.environ['R1JAX_CACHE'], 'run'):
    assert buckets.named(path) == path


def test_where_a_run_works_its_own_files_are_read(tmp_path):
  (tmp_path / 'sft').mkdir()
  (tmp_path / 'sft/kept-0.jsonl').write_text('{"a": 5}\n')
  with buckets.worked_on(URL, tmp_path):
    assert buckets.model(f'{URL}/sft') == str(tmp_path / 'sft')
    rows = json_lines.read_rows(f'{URL}/sft/kept-*.jsonl', 'train')
    assert [row for _, row in rows] == [{'a': 5}]
  assert not memory_bucket.content()


def test_inputs_have_the_names_of_the_bucket_on_every_machine(machine):
  memory_bucket.put(_RUN | {'data/train.jsonl': b'{"a": 1}\n'})
  config = ml_collections.ConfigDict({
      'init_from': URL, 'optim': {}, 'data': {
          'task': f'jsonl:{URL}/data/{{split}}.jsonl', 'split': 'train',
          'options': {'data_dir': 'memory://not/read'}}}).to_dict()
  found = inputs.digests(config), inputs.external(config)
  assert found[0][f'{URL}/data/{{split}}.jsonl'].keys() == {
      f'{URL}/data/train.jsonl'}
  assert 'checkpoints, where it starts' in found[0][URL]
  assert found[1].keys() == {f'{URL}/data/train.jsonl', URL}
  machine()
  assert found == (inputs.digests(config), inputs.external(config))
  assert os.environ['R1JAX_CACHE'] not in json.dumps(found)
