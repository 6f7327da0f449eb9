"""What a workdir holds, checked against its checkpoints' records."""

import json
import random
import shutil
import types

import pytest

from r1jax import errors
from r1jax.pipeline import manifest
from r1jax.training import files
from r1jax.training import history
from r1jax.training import record
from r1jax.training import surroundings

STEPS, SAVED = 9, 6
CONFIG = dict(stage='toy', seed=3, steps=STEPS, optim=dict(lr=.1, b1=.9))
NAMES = history.METRICS, history.ROLLOUTS


def _write(workdir, first, last):
  for step in range(first, last):
    files.append_rows(workdir / history.METRICS, [{'step': step, 'loss': 1.}])
    files.append_rows(workdir / history.ROLLOUTS, [
        {'step': step, 'text': 'x' * 20} for _ in range(2)])


@pytest.fixture(name='run')
def _run(tmp_path):
  """(workdir, record of step 6) of a run that was killed in step 8."""
  _write(tmp_path, 0, SAVED)
  saved = json.loads(json.dumps(history.record(tmp_path, SAVED, CONFIG)))
  _write(tmp_path, SAVED, 8)
  with open(tmp_path / history.METRICS, 'a', encoding='utf-8') as file:
    file.write('{"step": 8, "lo')
  return tmp_path, saved


def _take_up(workdir, step, record, product=False, every=1):
  history.take_up(workdir, step, record, rollouts_every=every, product=product)


def _steps(workdir, name):
  return [row['step'] for row in files.read_rows(workdir / name)]


@pytest.mark.parametrize('product', [False, True])
def test_rows_behind_the_checkpoint_go_and_no_other_is_read(
    run, monkeypatch, capsys, product):
  workdir, record = run
  content = {name: (workdir / name).read_bytes() for name in NAMES}
  def refuse(*args):
    raise AssertionError('reads or writes the history')
  monkeypatch.setattr(files, 'stream_rows', refuse)
  monkeypatch.setattr(files, 'write_rows', refuse)
  _take_up(workdir, SAVED, record, product)
  assert not capsys.readouterr().out
  for name in NAMES:
    size = record['files'][name]['bytes']
    assert (workdir / name).read_bytes() == content[name][:size]


def test_only_the_end_of_a_long_file_is_read(tmp_path, monkeypatch):
  path = tmp_path / history.METRICS
  path.write_bytes(b'{}\n' * 100_000)
  entry = history.record(tmp_path, 1, CONFIG)['files'][history.METRICS]
  assert entry['bytes'] == 300_000
  path.write_bytes(b'[]\n' + b'{}\n' * 99_999)  # the end is the same
  assert history._end(path, entry) == 300_000
  path.write_bytes(b'{}\n' * 99_999 + b'[]\n')
  assert history._end(path, entry) is None


@pytest.mark.parametrize('rows', [1, 7, 3000])
def test_an_evaluation_made_up_since_is_no_other_row(tmp_path, capsys, rows):
  """A kill before the next checkpoint; the rows behind it go."""
  path = tmp_path / history.METRICS
  row = lambda step, **more: {
      'step': step, 'a': 1., **more, 'é': 'ü' * 9, 'time/x': 2.}
  before = [row(step) for step in range(rows)]
  files.write_rows(path, before)
  saved = history.record(tmp_path, rows, CONFIG)
  made_up = [*before[:-1], row(rows - 1, **{'eval/a': 3., 'eval/b': 4})]
  files.write_rows(path, [*made_up, row(rows), row(rows + 1)])
  _take_up(tmp_path, rows, saved)
  assert files.read_rows(path) == made_up and not capsys.readouterr().out
  made_up[-1]['a'] = 2.  # another
  files.write_rows(path, made_up)
  _take_up(tmp_path, rows, saved)
  assert 'rows of it are gone or changed' in capsys.readouterr().out


def _without(workdir, name, *steps):
  rows = files.read_rows(workdir / name)
  files.write_rows(workdir / name, [
      row for row in rows if row['step'] not in steps])


LOSSES = {  # what happens to a file: (its loss, what is said of it)
    'removed': (lambda workdir, name: (workdir / name).unlink(), '0 to 5'),
    'emptied': (lambda workdir, name: (workdir / name).write_bytes(b''),
                '0 to 5'),
    'cut': (lambda workdir, name: files.truncate_rows(workdir / name, 4),
            '4 to 5'),
    'with a hole': (lambda workdir, name: _without(workdir, name, 1, 3, 4),
                    '1, 3 to 4'),
    'of another run': (lambda workdir, name: (workdir / name).write_text(
        (workdir / name).read_text().replace('1.', '2.').replace('x', 'y')),
                       'rows of it are gone or changed'),
}


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('loss', LOSSES)
def test_rows_below_the_checkpoint_that_are_gone_are_named(
    run, capsys, loss, name):
  workdir, record = run
  lose, said = LOSSES[loss]
  lose(workdir, name)
  before = (workdir / name).read_bytes() if (workdir / name).exists() else None
  if name == history.ROLLOUTS:
    with pytest.raises(errors.ConfigError, match=(
        r'rollouts\.jsonl is not what it was at .* step 6.*' + said +
        '.*from a copy, or remove .*/checkpoints to sample again')):
      _take_up(workdir, SAVED, record, product=True)
  _take_up(workdir, SAVED, record)
  line, = capsys.readouterr().out.splitlines()
  assert line.startswith(f'warning: {workdir / name} is not what it was')
  assert said in line
  assert set(_steps(workdir, name)) <= set(range(SAVED)) or before is None
  # What is left is what the next checkpoint remembers.
  again = history.record(workdir, SAVED, CONFIG)
  _take_up(workdir, SAVED, again)
  assert not capsys.readouterr().out


def test_a_checkpoint_of_an_earlier_version_has_no_record(run, capsys):
  workdir, _ = run
  _take_up(workdir, SAVED, None)
  assert not capsys.readouterr().out
  assert _steps(workdir, history.METRICS) == [*range(SAVED)]
  _without(workdir, history.METRICS, 2)
  _without(workdir, history.ROLLOUTS, 2)
  _take_up(workdir, SAVED, None)
  line, = capsys.readouterr().out.splitlines()
  assert 'metrics.jsonl' in line and 'rows of the steps 2 are gone' in line
  with pytest.raises(errors.ConfigError, match='steps 2 are gone'):
    _take_up(workdir, SAVED, None, product=True)
  _take_up(workdir, SAVED, None, product=True, every=3)  # 0 and 3 are there


def test_rows_of_a_run_whose_checkpoints_are_gone_are_kept(run, capsys):
  workdir, _ = run
  content = [(workdir / name).read_bytes() for name in NAMES]
  history.save_seconds(workdir, 3.)  # it had saved a state
  _take_up(workdir, 0, None)
  said, = capsys.readouterr().out.splitlines()
  assert said.startswith(f'warning: {workdir}/checkpoints has none of the state')
  assert 'up to step 7, are kept as metrics.jsonl.old' in said
  kept = [(workdir / f'{name}.old').read_bytes() for name in NAMES]
  assert kept == content and not any((workdir / name).exists() for name in NAMES)
  _take_up(workdir, 0, None)
  assert not capsys.readouterr().out and not (workdir / 'seconds.json').exists()


def test_without_a_checkpoint_a_run_starts_again_and_says_so(run, capsys):
  workdir, _ = run
  _take_up(workdir, 0, None)
  assert 'no checkpoint is there' in capsys.readouterr().out
  assert not any((workdir / name).stat().st_size for name in NAMES)
  _take_up(workdir, 0, None)
  assert not capsys.readouterr().out


def test_a_file_that_did_not_exist_then_is_emptied(tmp_path):
  saved = history.record(tmp_path, SAVED, CONFIG)
  _write(tmp_path, SAVED, 8)
  _take_up(tmp_path, SAVED, saved)
  assert not _steps(tmp_path, history.METRICS)


@pytest.mark.parametrize('content', [
    b'', b'{"stage": "toy"', b'\0' * 40, b'[]', b'null', b'\xff{}'])
@pytest.mark.parametrize('name', ['config.json', 'diverged.json'])
def test_a_file_that_is_half_written_is_one_line(tmp_path, name, content):
  history.claim(tmp_path, CONFIG)
  (tmp_path / name).write_bytes(content)
  with pytest.raises(errors.ConfigError, match=(
      rf'{tmp_path}/{name}: expected a whole JSON.*from a copy, or remove it')
                     ) as error:
    history.claim(tmp_path, CONFIG)
    history.note_divergence(tmp_path, 'again')
  assert '\n' not in str(error.value)
  assert (tmp_path / name).read_bytes() == content


def test_the_time_of_a_run_is_a_convenience(tmp_path, caplog):
  history.save_seconds(tmp_path, 3.5)
  assert history.seconds_before(tmp_path) == 3.5
  for content in ('', '{"seconds"', '{}', '{"seconds": null}', '[1]',
                  '{"seconds": "1"}', '{"seconds": NaN}',
                  '{"seconds": 1e400}', '{"seconds": 1' + '0' * 400 + '}'):
    (tmp_path / 'seconds.json').write_text(content)
    caplog.clear()
    assert history.seconds_before(tmp_path) == 0
    assert len(caplog.records) == 1
  shutil.rmtree(tmp_path)
  history.save_seconds(tmp_path, 4.)  # nowhere to write to


def _status(workdir):
  node = types.SimpleNamespace(workdir=workdir, config={})
  return manifest.status(node, manifest.Inputs({}, {}))


ENDS = dict(config={}, inputs={}, outputs={}, seconds=1)
INPUTS = lambda workdir: record.check_inputs(workdir, {'a': {'x': '1'}})
NOTE = lambda workdir: surroundings.note(workdir, resumed=True)


@pytest.mark.parametrize('name, content, use', [
    ('diverged.json', {'events': {}}, history.changeable),
    ('diverged.json', {'events': [1]}, history.changeable),
    ('run.json', {'inputs': [1]}, INPUTS),
    ('run.json', {'inputs': {'a': '1'}}, INPUTS),
    ('run.json', {'surroundings': 'cpu'}, NOTE),
    ('summary.json', {'steps': '3'}, record.steps),
    ('manifest.json', {'steps': [3]}, record.steps),
    ('manifest.json', ENDS | {'seconds': '1'}, _status),
    ('manifest.json', ENDS | {'outputs': [1]}, _status),
    ('begun.json', {'config': [], 'inputs': {}}, _status),
    ('begun.json', {'config': {}, 'inputs': {}, 'named': {'a': 1}}, _status),
    ('begun.json', {'config': {}, 'inputs': {}, 'code': [1]}, _status)])
def test_an_entry_of_another_type_is_one_line(tmp_path, name, content, use):
  files.make_folder((tmp_path / name).parent)
  files.write_json(tmp_path / name, content)
  with pytest.raises(errors.ConfigError, match=(
      f'^{tmp_path}/{name}: expected a whole JSON object with ')) as error:
    use(tmp_path)
  assert '\n' not in str(error.value)


def test_a_file_whose_optional_entries_are_absent_is_read(tmp_path):
  for content in ({}, {'inputs': None}, {'other': 1}):
    files.write_json(tmp_path / 'run.json', content)
    assert record.read(tmp_path) == content
  for events in ([], [{'ended': 3}]):
    files.write_json(tmp_path / 'diverged.json', {'events': events})
    assert history.changeable(tmp_path) == ()
  for more in ({}, {'code': 'one'}, {'code': ['one']}, {'rows': {'x': 1}}):
    files.write_json(tmp_path / 'manifest.json', ENDS | more)
    assert _status(tmp_path).kind == manifest.Kind.RESUME


def test_what_run_json_held_is_known_from_the_checkpoint(tmp_path):
  INPUTS(tmp_path)
  NOTE(tmp_path)
  before = files.read_json(tmp_path / 'run.json')
  _save_record(tmp_path, 3, CONFIG)
  (tmp_path / 'run.json').unlink()
  with pytest.raises(errors.ConfigError, match='a/x has changed'):
    record.check_inputs(tmp_path, {'a': {'x': '2'}})
  INPUTS(tmp_path)
  assert files.read_json(tmp_path / 'run.json') == before
  files.write_json(tmp_path / 'run.json', {'surroundings': {}})
  with pytest.raises(errors.ConfigError, match='a/x has changed'):
    record.check_inputs(tmp_path, {'a': {'x': '2'}})


def _save_record(workdir, step, config):
  files.make_folder(workdir / f'checkpoints/{step}/run')
  files.write_json(workdir / f'checkpoints/{step}/run/metadata', {
      'run': history.record(workdir, step, config)})


def test_a_config_that_is_gone_is_known_from_the_checkpoint(tmp_path):
  history.claim(tmp_path, CONFIG)
  _write(tmp_path, 0, SAVED)
  _save_record(tmp_path, 3, CONFIG | dict(seed=5))
  _save_record(tmp_path, 10, CONFIG)
  (tmp_path / 'config.json').unlink()
  with pytest.raises(errors.ConfigError, match=r'config.seed \(3 there, 4 here'):
    history.claim(tmp_path, CONFIG | dict(seed=4))
  assert not (tmp_path / 'config.json').exists()
  history.claim(tmp_path, CONFIG | dict(name='renamed'))
  assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 3


def test_checkpoints_of_another_run_are_refused(tmp_path):
  """A backup that was brought back into the wrong workdir."""
  history.claim(tmp_path, CONFIG)
  _save_record(tmp_path, 3, CONFIG | dict(seed=5))
  for name, content in (('3', None), ('4', '{"run"'), ('5', '{"run": [1]}')):
    if content:  # a damaged record is passed over
      files.make_folder(tmp_path / f'checkpoints/{name}/run')
      (tmp_path / f'checkpoints/{name}/run/metadata').write_text(content)
    with pytest.raises(errors.ConfigError, match=(
        r'holds checkpoints of another configuration: config.seed \(5 there')):
      history.claim(tmp_path, CONFIG)
  files.write_json(tmp_path / 'config.json', {})
  with pytest.raises(errors.ConfigError, match='holds a run of another'):
    history.claim(tmp_path, CONFIG)


def test_a_run_that_has_computed_nothing_may_be_given_other_values(tmp_path):
  """One without memory is told to take a smaller batch."""
  history.claim(tmp_path, CONFIG)
  record.check_inputs(tmp_path, {'data': {'a': '1'}})
  history.claim(tmp_path, _with(lr=.01))
  record.check_inputs(tmp_path, {'data': {'a': '2'}})
  assert json.loads((tmp_path / 'config.json').read_text()) == _with(lr=.01)
  (tmp_path / 'evaluation_before.json').write_text('{}')
  with pytest.raises(errors.ConfigError, match='config.optim.lr'):
    history.claim(tmp_path, CONFIG)
  with pytest.raises(errors.ConfigError, match='a has changed'):
    record.check_inputs(tmp_path, {'data': {'a': '1'}})


@pytest.mark.parametrize('name', [*NAMES, 'evaluation_before.json'])
def test_files_of_a_run_without_any_config_are_refused(tmp_path, name):
  (tmp_path / name).write_text('{}\n')
  with pytest.raises(errors.ConfigError, match=f'holds {name} of a run but no'):
    history.claim(tmp_path, CONFIG)
  assert [path.name for path in tmp_path.iterdir()] == [name]


def _with(**optim):
  return CONFIG | dict(optim=CONFIG['optim'] | optim)


def test_after_a_divergence_some_fields_may_change_and_it_is_remembered(
    tmp_path, capsys):
  history.claim(tmp_path, CONFIG)
  (tmp_path / 'metrics.jsonl').write_text('{"step": 0}\n')
  with pytest.raises(errors.ConfigError, match='config.optim.lr'):
    history.claim(tmp_path, _with(lr=.01))
  history.note_divergence(tmp_path, 'step 6: diverged')
  with pytest.raises(errors.ConfigError, match='configuration: config.optim.b1'
                     r' \(0.9 there, 0.8 here\); give'):
    history.claim(tmp_path, _with(lr=.01, b1=.8))
  history.claim(tmp_path, CONFIG)
  assert not capsys.readouterr().out
  for _ in range(2):  # the second is no change
    history.claim(tmp_path, _with(lr=.01, clip_norm=.5))
  line, = capsys.readouterr().out.splitlines()
  assert 'config.optim.clip_norm' in line and 'lr (0.1 there, 0.01 here)' in line
  history.note_divergence(tmp_path, 'step 7: diverged')
  events = json.loads((tmp_path / 'diverged.json').read_text())['events']
  assert [[*event] for event in events] == [
      ['diverged'], ['changed'], ['diverged']]
  assert len(events[1]['changed']) == 2
  assert json.loads((tmp_path / 'config.json').read_text()) == _with(
      lr=.01, clip_norm=.5)


def test_steps_in_words():
  rng = random.Random(0)
  for _ in range(50):
    steps = {n for n in range(30) if rng.random() < .5}
    told = set()
    for part in filter(None, history._in_words(steps).split(', ')):
      first, _, last = part.partition(' to ')
      told |= {*range(int(first), int(last or first) + 1)}
    assert told == steps
