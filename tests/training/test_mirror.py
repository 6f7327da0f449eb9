"""A run in a bucket: what is there at any moment is enough to go on elsewhere.

Around the toy stage of test_loop; the bucket is fsspec's, in memory. Those of
Google's and Amazon's protocols are in test_stores.py.
"""

import contextlib
import json
import os
import pathlib
import shutil
import threading
import time

import jax
import pytest

import memory_bucket
import test_loop
from r1jax import buckets
from r1jax import errors
from r1jax import objects
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import history
from r1jax.training import lease
from r1jax.training import mirror
from r1jax.training import owners

URL = memory_bucket.URL
STEPS = test_loop.STEPS


@pytest.fixture(name='machine', autouse=True)
def _machine(monkeypatch, tmp_path):
  """A machine with an empty bucket; called, another machine."""
  return memory_bucket.install(monkeypatch, tmp_path)


def _spool(url=URL):
  return buckets.place('runs', url)


def _tree(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


def _train(stage=None, settings=test_loop.SETTINGS, url=URL):
  with mirror.mirrored(url) as workdir:
    return test_loop._run(workdir, stage, settings)


###############################################################################
# A run, and what is there at any moment of it
###############################################################################


def test_a_run_goes_on_elsewhere_from_any_moment(
    monkeypatch, tmp_path, machine):
  whole = tmp_path / 'whole'
  test_loop._run(whole)
  with monkeypatch.context() as patch:
    changes = memory_bucket.Changes(patch)
    _train()
  test_loop._assert_same_as(whole, _spool())
  assert memory_bucket.content() | _tree(_spool()) == memory_bucket.content()
  extra = memory_bucket.content().keys() - _tree(_spool()).keys()
  assert extra == {'mirror.json'}  # the lock is gone

  saved = set()
  for seen in changes.seen[2::6]:
    machine()
    memory_bucket.put({name: seen[name] for name in seen if name != 'lock'})
    with mirror.mirrored(URL) as folder:
      saved.add(_check_rows(pathlib.Path(folder)))
  assert saved == {0, 3, 6, 9, 12}
  for seen in (changes.seen[len(changes.seen) * n // 5] for n in (1, 3, 4)):
    machine()
    memory_bucket.put({name: seen[name] for name in seen if name != 'lock'})
    _train()
    test_loop._assert_same_as(whole, _spool())
    assert memory_bucket.content() | _tree(_spool()) == memory_bucket.content()


def _check_rows(folder):
  """The step of the last checkpoint, whose rows are there."""
  with contextlib.closing(checkpoint.Checkpointer(
      folder / 'checkpoints', keep=2)) as saves:
    found = saves.restore_latest(test_loop._stage().abstract)
    assert not list(folder.glob('checkpoints/damaged*'))
    for name, was in (saves.record or {'files': {}})['files'].items():
      assert history._end(folder / name, was) is not None
  return found[1] if found else 0


def _committed():
  """The steps of the checkpoints that the bucket has."""
  return sorted(int(name.split('/')[1]) for name in memory_bucket.content()
                if name.count('/') == 2 and objects.is_commit(name)
                and name.split('/')[1].isdecimal())


def test_a_slow_bucket_slows_the_run_and_keeps_a_checkpoint(monkeypatch):
  steps, found, goes_on = [], [], threading.Event()
  def pipe_file(*args, _do=memory_bucket.kind_of().pipe_file, **kw):
    if '/checkpoints/6/' in args[1]:
      goes_on.wait()
    _do(*args, **kw)
  monkeypatch.setattr(memory_bucket.kind_of(), 'pipe_file', pipe_file)
  def look():
    until = time.monotonic() + 60
    while (not steps or steps[-1] < 8) and time.monotonic() < until:
      time.sleep(.01)
    time.sleep(.5)
    found.extend([steps[-1], _committed(), files.saved_steps(
        _spool() / 'checkpoints')])
    goes_on.set()
  looking = threading.Thread(target=look)
  looking.start()
  _train(test_loop._stage(on_step=steps.append),
         test_loop.SETTINGS._replace(keep=1))
  looking.join()
  assert found == [8, [3], [3, 6]]  # 9 is saved when 6 is in the bucket
  assert _committed() == files.saved_steps(_spool() / 'checkpoints') == [12]


def test_what_a_person_removes_from_the_bucket_is_not_put_back(capsys):
  _train()
  memory_bucket.put({
      name: content for name, content in memory_bucket.content().items()
      if not name.startswith('checkpoints/12/')})
  steps = []
  _train(test_loop._stage(on_step=steps.append))
  assert steps[0] == 9 and _committed() == [9, 12]
  assert 'warning' not in capsys.readouterr().out  # nothing was set aside


def test_a_bucket_that_vanishes_is_a_line_and_the_run_is_kept(
    monkeypatch, machine, tmp_path):
  with monkeypatch.context() as patch:
    away = []
    def pipe_file(*args, _do=memory_bucket.kind_of().pipe_file, **kw):
      if away or '/checkpoints/6/' in args[1]:
        away.append(1)
        raise ConnectionError('no route to the store')
      _do(*args, **kw)
    patch.setattr(memory_bucket.kind_of(), 'pipe_file', pipe_file)
    with pytest.raises(errors.RunError) as caught:
      _train()
  line = str(caught.value)
  assert '\n' not in line and line.startswith(f'--workdir: {URL} cannot be wr')
  assert 'no route to the store' in line and f'--workdir={_spool()}' in line
  copy = shutil.copytree(_spool(), tmp_path / 'copy')
  assert _committed() == [3]
  steps = []
  _train(test_loop._stage(on_step=steps.append))  # the bucket is back
  assert steps[0] == 6
  test_loop._run(tmp_path / 'whole')
  test_loop._assert_same_as(tmp_path / 'whole', _spool())
  assert memory_bucket.content() | _tree(_spool()) == memory_bucket.content()
  test_loop._run(copy)  # or goes on without it
  test_loop._assert_same_as(tmp_path / 'whole', copy)


def test_what_a_pass_meets_ends_the_run_at_the_next_step(monkeypatch):
  monkeypatch.setattr(mirror, '_EVERY_SECONDS', .01)
  steps = []
  def on_step(step):
    steps.append(step)
    if step == 4:
      monkeypatch.setattr(memory_bucket.kind_of(), 'pipe_file', _refuse)
    time.sleep(.2 if step > 3 else 0)
  with pytest.raises(errors.RunError, match='is away'):
    _train(test_loop._stage(on_step=on_step),
           test_loop.SETTINGS._replace(checkpoint_every_steps=100))
  assert len(steps) < STEPS


def _refuse(*args, **kw):
  raise ConnectionError('the store is away')


###############################################################################
# Files, without a training
###############################################################################


def _write(folder, name, content):
  path = pathlib.Path(folder, name)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.write_whole(path) as part:
    part.write_text(content)


@pytest.mark.parametrize('removed', [False, True])
def test_what_was_worked_on_elsewhere_since_is_copied_anew(
    machine, capsys, removed):
  with mirror.mirrored(URL) as one:
    _write(one, 'a.json', 'one')
    _write(one, 'b/c.html', 'one')
  first = os.environ['R1JAX_CACHE']
  machine()
  with mirror.mirrored(URL) as two:
    assert (pathlib.Path(two) / 'b/c.html').read_text() == 'one'
    _write(two, 'a.json', 'two')
    if removed:
      (pathlib.Path(two) / 'b/c.html').unlink()
  assert ('b/c.html' in memory_bucket.content()) != removed
  os.environ['R1JAX_CACHE'] = first
  _write(one, 'd.json', 'not sent')
  with mirror.mirrored(URL) as again:
    assert again == one
    assert (pathlib.Path(one) / 'a.json').read_text() == 'two'
    assert pathlib.Path(one, 'b/c.html').exists() != removed
  assert pathlib.Path(f'{one}.old1/d.json').read_text() == 'not sent'
  assert f'is in {one}.old1' in capsys.readouterr().out


def test_a_folder_that_has_lost_files_is_no_reason_to_remove_them(capsys):
  with mirror.mirrored(URL) as folder:
    _write(folder, 'a.json', 'one')
    _write(folder, 'checkpoints/3/params/d', 'two')
  for lost in ('a.json', 'checkpoints'):
    files.remove(pathlib.Path(folder, lost))
    with mirror.mirrored(URL):
      assert pathlib.Path(folder, 'a.json').read_text() == 'one'
      assert pathlib.Path(folder, 'checkpoints/3/params/d').exists()
  shutil.rmtree(folder)
  with mirror.mirrored(URL):
    assert pathlib.Path(folder, 'a.json').read_text() == 'one'


def test_a_checkpoint_that_was_not_committed_is_not_there(machine):
  memory_bucket.put({'checkpoints/3/params/d': b'3', 'checkpoints/3/run': b'3',
            'checkpoints/3/commit_success.txt': b'',
            'checkpoints/6/params/d': b'6'})
  with mirror.mirrored(URL) as folder:
    assert _tree(pathlib.Path(folder)) == {
        'checkpoints/3/params/d': b'3', 'checkpoints/3/run': b'3'}
  assert 'checkpoints/6/params/d' not in memory_bucket.content()


def test_what_a_person_puts_beside_checkpoints_stays_and_is_not_copied():
  beside = {f'checkpoints/{name}': b'mine' for name in (
      'damaged-6/a', 'damaged-6/commit_success.txt', 'note.txt')}
  memory_bucket.put(beside | {'checkpoints/3/a': b'3', 'a.json': b'',
                              'checkpoints/3/commit_success.txt': b''})
  with mirror.mirrored(URL) as folder:
    assert _tree(pathlib.Path(folder)).keys() == {'checkpoints/3/a', 'a.json'}
    _write(folder, 'checkpoints/6/a', '6')
  found = memory_bucket.content()
  assert found | beside == found and _committed() == [3, 6]


def test_a_checkpoint_of_the_same_step_takes_its_place_whole(monkeypatch):
  with mirror.mirrored(URL) as folder:
    for name in 'abc':
      _write(folder, f'checkpoints/3/{name}', 'old')
    mirror.settle()
    shutil.rmtree(pathlib.Path(folder, 'checkpoints/3'))
    for name in 'abd':
      _write(folder, f'checkpoints/3/{name}', 'new')
    with monkeypatch.context() as patch:
      changes = memory_bucket.Changes(patch)
      mirror.settle()
  for seen in changes.seen:
    if 'checkpoints/3/commit_success.txt' in seen:
      assert {seen.get(f'checkpoints/3/{name}') for name in 'abd'} == {b'new'}
      assert 'checkpoints/3/c' not in seen


def _saved(folder, step):
  for name in 'abc':
    _write(folder, f'checkpoints/{step}/{name}', f'{step}')


def _wholes(seen):
  """The steps of the checkpoints in a bucket, all of whose files are there."""
  steps = {name.split('/')[1] for name in seen
           if name.endswith(f'/{objects.COMMITTED}')}
  for step in steps:
    assert {name: content for name, content in seen.items() if name.startswith(
        f'checkpoints/{step}/') and not objects.is_commit(name)} == {
            f'checkpoints/{step}/{name}': step.encode() for name in 'abc'}
  return {int(step) for step in steps}


def test_of_a_run_ahead_of_the_bucket_the_last_one_there_stays(monkeypatch):
  with mirror.mirrored(URL) as folder:
    _saved(folder, 3)
    mirror.settle()
    changes = memory_bucket.Changes(monkeypatch)
    shutil.rmtree(pathlib.Path(folder, 'checkpoints/3'))
    _saved(folder, 6)
    put = objects.Folder.put
    def removed_meanwhile(self, path, name):
      put(self, path, name)
      pathlib.Path(folder, 'checkpoints/6/c').unlink(missing_ok=True)
    with monkeypatch.context() as patch:
      patch.setattr(objects.Folder, 'put', removed_meanwhile)
      mirror.settle()
    assert _wholes(memory_bucket.content()) == {3}
    shutil.rmtree(pathlib.Path(folder, 'checkpoints/6'))
    _saved(folder, 9)
    mirror.settle()
  found = [_wholes(seen) for seen in changes.seen]
  assert all(found) and found[-1] == {9} and {3, 9} in found


def test_files_are_written_in_the_order_in_which_they_were_changed(
    monkeypatch):
  with mirror.mirrored(URL) as folder:
    monkeypatch.setattr(mirror, '_EVERY_SECONDS', 60.)
    changes = memory_bucket.Changes(monkeypatch)
    for n, name in enumerate(['z.json', 'a/b.json', 'summary.json', 'b.html']):
      _write(folder, name, name)
      os.utime(pathlib.Path(folder, name), ns=(n, n))
    mirror.settle()
    order = [*dict.fromkeys(name for seen in changes.seen for name in seen)]
    assert [name for name in order if name not in ('lock', 'mirror.json')] == [
        'z.json', 'a/b.json', 'summary.json', 'b.html']
    # What is gone goes first, what has another name last.
    pathlib.Path(folder, 'summary.json').unlink()
    pathlib.Path(folder, 'z.json').rename(pathlib.Path(folder, 'z.old'))
    _write(folder, 'begun.json', 'new')
    changes.seen.clear()
    mirror.settle()
  assert not any('summary.json' in seen for seen in changes.seen)
  assert all('z.json' in seen or 'z.old' in seen for seen in changes.seen)
  assert 'z.json' not in memory_bucket.content()


@pytest.mark.parametrize('lines', [0, 1, 9, 10, 11, 35])
def test_rows_are_written_in_blocks_of_which_the_last_grows(
    monkeypatch, machine, lines):
  monkeypatch.setattr(objects, 'BLOCK', 100)
  line = lambda n: f'{n:09d}\n'.encode()
  with mirror.mirrored(URL) as folder:
    path = pathlib.Path(folder, 'rollouts.jsonl')
    path.write_bytes(b''.join(map(line, range(lines))))
    mirror.settle()
    changes = memory_bucket.Changes(monkeypatch)
    with open(path, 'ab') as file:
      file.write(line(lines))
    mirror.settle()
    written = [name for name, other in changes.seen[-1].items()
               if other is not None and name.startswith('rollouts')]
    assert len(written) == lines // 10 + 1
    assert len(changes.seen) <= 1  # the last block alone
    # Cut as at a resume, and grown otherwise.
    kept = lines // 2
    path.write_bytes(b''.join(map(line, range(kept))))
    with open(path, 'ab') as file:
      file.writelines(line(-n) for n in range(1, 8))
    mirror.settle()
    assert {name for name in memory_bucket.content() if 'rollouts' in name} == {
        objects.block_name('rollouts.jsonl', n)
        for n in range((kept + 7 + 9) // 10)}
    for seen in changes.seen:  # what was there before the cut always is
      assert _rows(seen).startswith(b''.join(map(line, range(kept))))
    whole = path.read_bytes()
  machine()
  with mirror.mirrored(URL) as folder:
    assert pathlib.Path(folder, 'rollouts.jsonl').read_bytes() == whole
    assert _tree(pathlib.Path(folder)).keys() == {'rollouts.jsonl'}


def _rows(seen):
  found = objects.whole({name: objects.Object(len(content), '')
                         for name, content in seen.items()})
  return b''.join(seen[block] for block in found.get('rollouts.jsonl', []))


def test_what_passes_is_no_object():
  with mirror.mirrored(URL) as folder:
    for name in ('sft/lock', '.a.json.7.part', '.r1jax-trial', 'sft/.a', 'a',
                 'checkpoints/3.orbax-checkpoint-tmp/params/d'):
      _write(folder, name, 'x')
  assert memory_bucket.content().keys() == {'a', 'sft/.a', 'mirror.json'}


def test_a_refused_run_leaves_nothing_in_the_bucket():
  with pytest.raises(errors.ConfigError), mirror.mirrored(URL):
    raise errors.ConfigError('x', 'refused')
  assert memory_bucket.content().keys() <= {'mirror.json'}
  with mirror.mirrored(URL):
    pass
  assert not memory_bucket.content()


def test_a_path_of_a_file_system_is_the_folder_itself(tmp_path):
  for path in (None, str(tmp_path)):
    with mirror.mirrored(path) as folder:
      assert folder == path
  mirror.follow(), mirror.settle()
  assert not mirror.is_behind()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('url, more', [
    (URL, {}), ('s3://bucket/run', {}), ('gs://bucket/run', {'of_stages': 1})])
def test_what_several_processes_cannot_share_is_refused(monkeypatch, url, more):
  monkeypatch.setattr(jax, 'process_count', lambda: 4)
  with pytest.raises(errors.ConfigError, match='mount the bucket'):
    with mirror.mirrored(url, **more):
      pass
  assert not memory_bucket.content()


###############################################################################
# The lock
###############################################################################


def _refused(words):
  with pytest.raises(errors.ConfigError, match=words) as caught:
    with mirror.mirrored(URL):
      raise AssertionError('two at once')
  assert '\n' not in str(caught.value)


def test_one_process_at_a_time_works_there(monkeypatch, machine):
  monkeypatch.setattr(lease, '_RENEW_SECONDS', .1)
  with mirror.mirrored(URL) as folder:
    _write(folder, 'a.json', 'one')
    _refused(f'is in use by process {os.getpid()} on ')  # this machine
    machine()
    identity = owners.identity()
    with monkeypatch.context() as patch:
      patch.setattr(owners, 'identity', lambda: identity | {'host': 'another'})
      _refused(f'^--workdir: {URL} is in use by process {os.getpid()} on ')
  with mirror.mirrored(URL):
    pass


def _left(**changes):
  return json.dumps(owners.identity() | changes).encode() + b'\n1.0\n'


@pytest.mark.parametrize('content', [
    _left(host='elsewhere'), b'', b'[1]', b'\xff'])
def test_the_lock_of_a_dead_process_is_taken_over(content):
  memory_bucket.put({'lock': content})
  began = time.monotonic()
  with mirror.mirrored(URL):
    lines = memory_bucket.content()['lock'].splitlines()
    assert json.loads(lines[0]) == owners.identity() | {
        'since': json.loads(lines[0])['since']}
  assert time.monotonic() - began > lease._WATCH_SECONDS
  assert 'lock' not in memory_bucket.content()


def test_that_of_a_killed_process_of_this_machine_at_once(monkeypatch):
  memory_bucket.put({'lock': _left(pid=2**22 + 1), 'a.json': b'one'})
  monkeypatch.setattr(lease, '_is_renewed', None)  # is not asked
  with mirror.mirrored(URL) as folder:
    assert pathlib.Path(folder, 'a.json').exists()


def test_who_was_taken_for_dead_writes_no_more():
  with pytest.raises(errors.RunError, match='was taken over by another'):
    with mirror.mirrored(URL) as folder:
      _write(folder, 'a.json', 'one')
      mirror.settle()
      memory_bucket.put(memory_bucket.content() | {
          'mirror.json': b'{"id": "other"}'})
      _write(folder, 'a.json', 'two')
      mirror.settle()
  assert memory_bucket.content()['a.json'] == b'one'


def test_of_many_that_find_a_dead_lock_one_begins(monkeypatch):
  folder = objects.Folder(URL)
  memory_bucket.put({'lock': _left(host='elsewhere')})
  begun, refused, mine = [], [], threading.local()
  identity = owners.identity()
  monkeypatch.setattr(owners, 'identity', lambda: identity | {
      'host': getattr(mine, 'host', '0')})
  all_five = threading.Barrier(5)
  def remove(self, name, _do=objects.Folder.remove):
    if not hasattr(mine, 'seen'):  # that it is dead; now all have
      mine.seen = all_five.wait(60)
      time.sleep(.1 * int(mine.host))
    _do(self, name)
  monkeypatch.setattr(objects.Folder, 'remove', remove)
  def begin(n):
    mine.host = str(n)
    try:
      with lease.held(folder):
        begun.append(n)
        time.sleep(1.)
    except errors.ConfigError:
      refused.append(n)
  monkeypatch.setattr(lease, '_RENEW_SECONDS', .1)
  monkeypatch.setattr(lease, '_SETTLE_SECONDS', .6)
  monkeypatch.setattr(owners, 'end_as_dead', lambda *_: None)
  threads = [threading.Thread(target=begin, args=(n,)) for n in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(begun), len(refused)) == (1, 4)
