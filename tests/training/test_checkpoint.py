"""Checkpoints: bitwise round trips, damage of every kind, kills, resharding."""

import errno
import gc
import logging
import operator
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import types as types_lib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import errors
from r1jax import types
from r1jax.training import checkpoint
from r1jax.training import digest

ROOT = pathlib.Path(__file__).resolve().parents[2]
P = jax.sharding.PartitionSpec

# Of one array that cannot be read Orbax raises, and its other arrays' readers
# are dropped with what they were about to raise.
pytestmark = pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnraisableExceptionWarning',
    'ignore:coroutine:RuntimeWarning')


def _params(seed, width=64):
  normal = np.random.default_rng(seed).normal
  return {
      'layers': {'w': jnp.asarray(normal(size=(2, width, width)), jnp.float32),
                 'scale': jnp.asarray(normal(size=8), jnp.bfloat16)},
      'table': jnp.asarray(normal(size=(16, 8)), jnp.bfloat16)}


def _state(step, width=64, ref=True):
  """Every leaf is a function of the step, none of another step's value."""
  return types.TrainState(
      jnp.int32(step), _params(step, width),
      ({'mu': _params(1000 + step, width), 'on': jnp.arange(5) % 2 == step % 2},
       None), _params(2000 + step, width) if ref else None, jnp.int32(step % 3))


def _abstract(tree, sharding=None):
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
          x.shape, x.dtype, sharding=sharding or x.sharding), tree)


def _bits(x):
  return np.atleast_1d(np.asarray(x)).view(np.uint8)


def _assert_same(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_array_equal(_bits(a), _bits(b))


def _open(directory, keep=3):
  return checkpoint.Checkpointer(directory, keep=keep)


def _save(directory, *steps, **kwargs):
  saves = _open(directory, **kwargs)
  for step in steps:
    saves.save(step, _state(step))
  saves.close()


def _restore(directory, abstract=None):
  saves = _open(directory)
  try:
    return saves.restore_latest(abstract or _abstract(_state(0)))
  finally:
    saves.close()


@pytest.fixture(autouse=True, scope='module')
def _collect():
  """Brings what Orbax dropped to light while this module's filters hold."""
  yield
  gc.collect()


@pytest.fixture(name='saved', scope='module')
def _saved(tmp_path_factory):
  directory = tmp_path_factory.mktemp('saved') / 'checkpoints'
  _save(directory, 1, 2)
  return directory


@pytest.fixture(name='copied')
def _copied(saved, tmp_path):
  return pathlib.Path(shutil.copytree(saved, tmp_path / 'checkpoints'))


def test_round_trip_is_bitwise_and_of_the_latest(saved):
  state, step = _restore(saved)
  assert step == 2
  _assert_same(state, _state(2))


def test_values_that_are_not_finite_survive(tmp_path):
  odd = jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0., 1e-45])
  state = types.TrainState(jnp.int32(0), {'w': odd}, (), None, jnp.int32(0))
  saves = _open(tmp_path)
  saves.save(0, state)
  _assert_same(saves.restore_latest(_abstract(state))[0], state)
  saves.close()


def test_an_empty_directory_holds_nothing(tmp_path):
  assert _restore(tmp_path / 'checkpoints') is None
  with pytest.raises(FileNotFoundError, match='no checkpoint in'):
    checkpoint.restore_params(tmp_path, _abstract(_params(0)))
  with pytest.raises(FileNotFoundError, match='not a directory'):
    checkpoint.restore_params(tmp_path / 'nowhere', _abstract(_params(0)))


def test_a_step_is_saved_once_and_the_latest_are_kept(tmp_path):
  _save(tmp_path, 2, 4, 6, 6, 7, keep=2)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['6', '7']
  # Not when it was last read: restoring lists it.
  written = lambda: operator.attrgetter('st_ino', 'st_mtime_ns', 'st_ctime_ns')(
      (tmp_path / '7').stat())
  before, saves = written(), _open(tmp_path, keep=2)
  assert saves.restore_latest(_abstract(_state(0)))[1] == 7
  saves.save(7, _state(7))  # the step that was restored
  saves.close()
  assert written() == before


def test_a_relative_directory_is_refused():
  with pytest.raises(ValueError, match='absolute path, received some/where'):
    _open('some/where')


def test_a_save_may_be_followed_by_donation(tmp_path):
  advance = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s),
                    donate_argnums=0)
  state = _state(4, width=256)
  saves = _open(tmp_path)
  saves.save(4, state)
  jax.block_until_ready(advance(state))
  saves.wait()
  restored, _ = saves.restore_latest(_abstract(_state(0, width=256)))
  _assert_same(restored, _state(4, width=256))
  saves.close()


def _flip(data, rng):
  place = len(data) // 2  # near its end Orbax leaves bytes unused
  return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + (
      data[place + 1:])


DAMAGES = {
    'gone': None,
    'empty': lambda data, rng: b'',
    'half': lambda data, rng: data[:len(data) // 2],
    'zeros': lambda data, rng: bytes(len(data)),
    'noise': lambda data, rng: rng.randbytes(len(data)),
    'a flipped bit': _flip,
}


def _largest(directory):
  return max((p for p in directory.rglob('*') if p.is_file()),
             key=lambda p: p.stat().st_size)


def _damage(path, kind, rng=random.Random(0)):
  data = path.read_bytes()
  path.unlink()
  if DAMAGES[kind]:
    path.write_bytes(DAMAGES[kind](data, rng))


@pytest.mark.parametrize('item', ['params', 'rest', 'manifest'])
@pytest.mark.parametrize('kind', DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    copied, caplog, kind, item):
  _damage(_largest(copied / '2' / item), kind)
  with caplog.at_level(logging.WARNING, logger='absl'):
    state, step = _restore(copied)
  assert step == 1
  _assert_same(state, _state(1))
  assert 'checkpoints/2 is damaged and is passed over' in caplog.text
  assert sorted(p.name for p in copied.iterdir()) == ['1', 'damaged-2']


def test_no_damaged_file_changes_what_is_restored(copied):
  """Any file, any damage: the state of step 2 or of step 1, bit for bit."""
  intact = copied.with_name('intact')
  shutil.copytree(copied, intact)
  rng = random.Random(1)
  files = [p for p in (intact / '2').rglob('*') if p.is_file()]
  found = {1: 0, 2: 0}
  for file in files:
    shutil.rmtree(copied)
    shutil.copytree(intact, copied)
    _damage(copied / file.relative_to(intact), rng.choice([*DAMAGES]), rng)
    state, step = _restore(copied)
    _assert_same(state, _state(step))
    found[step] += 1
  assert found[1] >= 5 and sum(found.values()) == len(files)


@pytest.mark.parametrize('item', ['params', 'rest', 'manifest'])
def test_a_missing_item_is_damage(copied, item):
  shutil.rmtree(copied / '2' / item)
  assert _restore(copied)[1] == 1


def test_values_that_are_readable_but_not_those_saved_are_damage(copied):
  """A whole item of another step: every file is sound, no array is right."""
  shutil.rmtree(copied / '2' / 'params')
  shutil.copytree(copied / '1' / 'params', copied / '2' / 'params')
  assert _restore(copied)[1] == 1


@pytest.mark.parametrize('how', ['damaged', 'twice damaged', 'renamed'])
def test_a_step_that_is_lost_can_be_saved_anew(copied, how):
  if how == 'renamed':
    (copied / '2').rename(copied / '0002')
  else:
    _damage(_largest(copied / '2'), 'half')
  if how == 'twice damaged':
    (copied / 'damaged-2').write_text('of an earlier resume')
  saves = _open(copied)
  assert saves.restore_latest(_abstract(_state(0)))[1] == 1
  saves.save(2, _state(2))
  saves.close()
  state, step = _restore(copied)
  assert step == 2
  _assert_same(state, _state(2))


def test_all_damaged_is_one_clear_error(copied):
  for step in '12':
    _damage(_largest(copied / step), 'half')
  with pytest.raises(errors.RunError, match=r'every checkpoint in .* is damaged '
                     r'\(steps \[2, 1\]; of the last: '):
    _restore(copied)
  assert {p.name for p in copied.iterdir()} == {'1', '2'}  # nothing is moved


def test_what_a_killed_save_leaves_is_not_a_checkpoint(copied):
  left = copied / '3.orbax-checkpoint-tmp'
  shutil.copytree(copied / '2', left)
  assert _restore(copied)[1] == 2
  until = time.monotonic() + 60  # Orbax removes it in the background
  while left.exists() and time.monotonic() < until:
    time.sleep(.05)
  assert not left.exists()


def _without(tree, name):
  return {k: v for k, v in tree.items() if k != name}


def _mismatches():
  good = _abstract(_state(0))
  wide = good._replace(params=_abstract(_params(0, width=32)))
  double = good._replace(params=good.params | {'table': jax.ShapeDtypeStruct(
      (16, 8), jnp.float32, sharding=good.params['table'].sharding)})
  return {
      'shape': (wide, r'params\.layers\.w: expected float32\[2, 32, 32\], '
                r'received float32\[2, 64, 64\]'),
      'dtype': (double, r'params\.table: expected float32\[16, 8\], received '
                r'bfloat16\[16, 8\]'),
      'missing': (good._replace(params=good.params | {'new': good.step}),
                  r'params\.new: expected int32\[\], received no such array'),
      'more': (good._replace(params=_without(good.params, 'table')),
               r'params\.table: expected no such array, received bfloat16'),
      'ref': (good._replace(ref=None), r'ref\.layers\.scale: expected no such'),
  }


@pytest.mark.parametrize('what', ['shape', 'dtype', 'missing', 'more', 'ref'])
def test_another_model_is_refused_by_name(saved, what):
  abstract, message = _mismatches()[what]
  with pytest.raises(errors.ConfigError, match=message) as error:
    _restore(saved, abstract)
  assert 'set config.model' in str(error.value)
  assert {p.name for p in saved.iterdir()} == {'1', '2'}  # and not as damaged


@pytest.mark.parametrize('where', ['.', 'checkpoints', 'checkpoints/1'])
def test_restore_params_from_a_workdir_or_checkpoint(saved, caplog, where):
  before = sorted(saved.rglob('*'))
  with caplog.at_level(logging.WARNING):
    params = checkpoint.restore_params(
        saved.parent / where, _abstract(_params(0)))
  _assert_same(params, _params(1 if where.endswith('1') else 2))
  assert not caplog.records
  assert sorted(saved.rglob('*')) == before


def test_restore_params_refuses_damage_and_another_model(copied):
  """None takes the place of the latest: it would be another model."""
  _damage(_largest(copied / '2' / 'rest'), 'gone')  # not read, not missed
  _assert_same(
      checkpoint.restore_params(copied, _abstract(_params(0))), _params(2))
  _damage(_largest(copied / '2' / 'params'), 'a flipped bit')
  with pytest.raises(errors.RunError, match=(
      r'/2 is damaged: .* then saves it anew, or name .*checkpoints/1')):
    checkpoint.restore_params(copied, _abstract(_params(0)))
  assert (copied / '2').exists()
  _assert_same(
      checkpoint.restore_params(copied / '1', _abstract(_params(0))),
      _params(1))
  with pytest.raises(errors.ConfigError, match='set config.model'):
    checkpoint.restore_params(copied / '1', _abstract(_params(0, width=8)))


def test_a_checkpoint_under_another_step_s_name_is_damaged(copied, caplog):
  (copied / '2').rename(copied / '4')
  with pytest.raises(errors.RunError, match='/4 is damaged: it is of step 2'):
    checkpoint.restore_params(copied, _abstract(_params(0)))
  with caplog.at_level(logging.WARNING, logger='absl'):
    assert _restore(copied)[1] == 1
  assert 'it is of step 2' in caplog.text


RECORD = {'step': 3, 'files': {'metrics.jsonl': {'bytes': 7}}}


def test_a_record_is_kept_and_damage_of_it_is_damage(tmp_path):
  for kind in DAMAGES:
    saves = _open(tmp_path / kind)
    saves.save(2, _state(2))  # as an earlier version did
    saves.save(3, _state(3), RECORD)
    saves.close()
    saves = _open(tmp_path / kind)
    assert saves.restore_latest(_abstract(_state(0)))[1] == 3
    assert saves.record == RECORD
    _damage(tmp_path / kind / '3/run/metadata', kind)
    assert saves.restore_latest(_abstract(_state(0)))[1] == 2
    assert saves.record is None
    saves.close()


@pytest.fixture(name='no_room')
def _no_room():
  """Files of more than 20,000 bytes cannot be written, as on a full disk."""
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
  resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_save_that_fails_is_one_line_as_soon_as_it_is_known(
    tmp_path, no_room, capfd, caplog, monkeypatch):
  gc.collect()  # what reads of damaged ones have left
  shown = []
  monkeypatch.setattr(sys, 'unraisablehook', shown.append)
  saves = _open(tmp_path)
  saves.save(1, _state(1, width=128))
  saves.wait()
  capfd.readouterr()
  no_room()
  saves.save(2, _state(2, width=128))
  with pytest.raises(errors.RunError, match=(
      rf'checkpoint {tmp_path}/2 could not be written \(that of step 1 stays\)'
      ': File too large; raise the limit')) as error:
    for _ in range(500):
      saves.poll()
      time.sleep(.02)
  assert '\n' not in str(error.value)
  saves.close()
  logged = [text for text in caplog.messages if str(tmp_path) in text
            or 'never retrieved' not in text]  # of reads in other tests
  assert capfd.readouterr() == ('', '') and not logged and not shown
  for text in ('Event loop is closed', 'another'):  # of TensorStore's threads
    sys.unraisablehook(types_lib.SimpleNamespace(exc_value=RuntimeError(text)))
  assert [str(each.exc_value) for each in shown] == ['another']
  state, step = _restore(tmp_path, _abstract(_state(0, width=128)))
  assert step == 1
  _assert_same(state, _state(1, width=128))


@pytest.mark.parametrize('error', [ValueError('of no file'), KeyError('leaf')])
def test_a_mistake_in_a_save_is_no_fault_of_the_machine(
    tmp_path, monkeypatch, error):
  saves = _open(tmp_path)
  saves.save(1, _state(1))
  def fail():
    raise error
  monkeypatch.setattr(saves._manager, 'wait_until_finished', fail)
  with pytest.raises(type(error), match=str(error)):
    saves.wait()
  monkeypatch.undo()
  saves.close()


def test_an_old_checkpoint_that_cannot_be_removed_is_no_failed_save(
    tmp_path, monkeypatch):
  saves, then = _open(tmp_path, keep=1), []
  saves.save(1, _state(1))
  saves.save(2, _state(2), then=lambda: then.append(2))
  def refuse(path, *args, **kwargs):
    raise PermissionError(errno.EACCES, 'refused')
  monkeypatch.setattr(shutil, 'rmtree', refuse)
  with pytest.raises(errors.RunError, match=f'^{tmp_path}/1: Permission denied'):
    saves.wait()
  monkeypatch.undo()
  assert then == [2]  # it is saved
  saves.close()
  assert _restore(tmp_path)[1] == 2


def test_older_checkpoints_stay_beside_one_that_may_be_ruined(tmp_path):
  saves = _open(tmp_path, keep=1)
  for step, replace in ((1, True), (2, False), (3, False)):
    saves.save(step, _state(step), replace=replace)
  saves.wait()
  assert {p.name for p in tmp_path.iterdir()} == {'1', '2', '3'}
  saves.save(4, _state(4))
  saves.close()
  assert [p.name for p in tmp_path.iterdir()] == ['4']


# What is raised where the machine refuses, outside and within an array's data.
REFUSED = {
    'by Python': lambda: PermissionError(errno.EACCES, 'refused', 'a/file'),
    'by TensorStore': lambda: ValueError("PERMISSION_DENIED: [os_error_code='13']"),
    'by Orbax': lambda: Exception('in an array'),
}


@pytest.mark.parametrize('how', REFUSED)
def test_what_the_machine_refuses_is_no_damage(copied, monkeypatch, how):
  """Nothing is passed over, moved or removed."""
  def refuse(*args, **kwargs):
    raise REFUSED[how]() from REFUSED['by TensorStore']()
  saves = _open(copied)
  monkeypatch.setattr(saves._manager, 'restore', refuse)
  monkeypatch.setattr(checkpoint.ocp, 'CheckpointManager',
                      lambda *args, **kwargs: saves._manager)
  for read in (lambda: saves.restore_latest(_abstract(_state(0))),
               lambda: checkpoint.restore_params(copied, _abstract(_params(0)))):
    with pytest.raises(errors.RunError, match=(
        rf'^checkpoint {copied}/2 cannot be read: Permission denied; let this '
        'user read')) as caught:
      read()
    assert not isinstance(caught.value, checkpoint.Damaged)
  assert {p.name for p in copied.iterdir()} == {'1', '2'}


def test_too_few_open_files_are_no_damage(copied):
  saves = _open(copied)
  limits = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
  try:
    with pytest.raises(errors.RunError, match='Too many open files; raise the'):
      saves.restore_latest(_abstract(_state(0)))
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
  saves.close()
  assert {p.name for p in copied.iterdir()} == {'1', '2'}


def _trace_syncs(monkeypatch, seen):
  """Calls `seen(path)` at every fsync."""
  fsync = os.fsync
  def traced(number):
    fsync(number)
    seen(pathlib.Path(os.readlink(f'/proc/self/fd/{number}')))
  monkeypatch.setattr(os, 'fsync', traced)


@pytest.mark.parametrize('keep', [1, 2])
def test_all_of_a_save_is_on_disk_before_an_older_one_goes(
    tmp_path, monkeypatch, keep):
  synced, rmtree = set(), shutil.rmtree

  def remove(path, *args, **kwargs):
    if pathlib.Path(path).name.isdigit():
      newest = max(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
      assert int(pathlib.Path(path).name) <= newest - keep
      new = tmp_path / str(newest)
      assert {new, tmp_path, *new.rglob('*')} <= synced
    rmtree(path, *args, **kwargs)

  _trace_syncs(monkeypatch, synced.add)
  monkeypatch.setattr(shutil, 'rmtree', remove)
  _save(tmp_path, 1, 2, 3, 4, keep=keep)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['3', '4'][2 - keep:]


def test_a_power_cut_at_any_moment_of_a_save_leaves_a_checkpoint(
    tmp_path, monkeypatch):
  """What was not put on disk by then is empty afterwards."""
  saves, images = tmp_path / 'saves', []
  synced, named = {}, set()  # inode: its version on disk; steps under their name
  version = operator.attrgetter('st_size', 'st_mtime_ns')

  def cut():
    image = tmp_path / f'image{len(images)}'
    for path in saves.rglob('*'):
      if path.is_file():
        copy = image / path.relative_to(saves)
        copy.parent.mkdir(parents=True, exist_ok=True)
        stat = path.stat()
        kept = synced.get(stat.st_ino) == version(stat)
        copy.write_bytes(path.read_bytes() if kept else b'')
    images.append(image)

  def seen(path):
    step = path.relative_to(saves).parts[0] if path != saves else '-'
    if path == saves or step.isdigit() and step not in named:
      named.add(step)  # cut as soon as Orbax has renamed it
      cut()
    if path.is_file():
      synced[path.stat().st_ino] = version(path.stat())

  saves.mkdir()
  _trace_syncs(monkeypatch, seen)
  _save(saves, 1, 2, 3, keep=1)
  monkeypatch.undo()
  assert len(images) == 6
  for number, image in enumerate(images):
    state, step = _restore(image)
    assert step == number // 2 + 1
    _assert_same(state, _state(step))


def test_resharding_from_one_device_to_eight_and_back(saved, tmp_path):
  mesh = jax.make_mesh((8,), ('fsdp',), axis_types=(
      jax.sharding.AxisType.Auto,))

  def place(x):
    axis = [size % 8 == 0 for size in x.shape]
    spec = P(*('fsdp' if i == (axis + [True]).index(True) else None
               for i in range(len(x.shape))))
    return jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=jax.sharding.NamedSharding(mesh, spec))

  eight = jax.tree.map(place, _abstract(_state(0)))
  state, _ = _restore(saved, eight)
  _assert_same(state, _state(2))
  assert len(state.params['layers']['w'].addressable_shards) == 8
  assert state.params['layers']['w'].addressable_shards[0].data.shape == (
      2, 8, 64)
  saves = _open(tmp_path)
  saves.save(2, state)
  _assert_same(saves.restore_latest(_abstract(_state(0)))[0], _state(2))
  saves.close()


PROGRAM = """
import sys
sys.path[:0] = ['.', 'tests/training']
import test_checkpoint as t
saves = t._open(sys.argv[1], keep=2)
found = saves.restore_latest(t._abstract(t._state(0, width=256)))
print(found[1] if found else 0, flush=True)
step = found[1] if found else 0
while True:
  step += 1
  saves.save(step, t._state(step, width=256))
  print(step, flush=True)
"""


def test_kill_9_while_saving_loses_one_save_at_most(tmp_path):
  """Three rounds in one directory; a save is in flight nearly all the time."""
  rng, abstract = random.Random(0), _abstract(_state(0, width=256))
  at = 0
  for _ in range(3):
    with subprocess.Popen(
        [sys.executable, '-c', PROGRAM, str(tmp_path)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, env=os.environ | {'JAX_PLATFORMS': 'cpu'}
    ) as process:
      assert int(process.stdout.readline()) == at
      begun = at
      for _ in range(rng.randint(2, 4)):
        begun = int(process.stdout.readline())
      try:
        process.wait(rng.random() * .1)
      except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
      begun = ([begun] + [int(x) for x in process.stdout.read().split()])[-1]
    assert process.returncode == -signal.SIGKILL
    state, at = _restore(tmp_path, abstract)
    assert begun - 1 <= at <= begun + 1
    _assert_same(state, _state(at, width=256))


@pytest.mark.parametrize('dtype', ['bool', 'uint8', 'bfloat16', 'int32'])
def test_digest_is_the_weighted_sum_of_bits(dtype):
  x = (np.arange(60).reshape(3, 4, 5) % 7 * 1.).astype(jnp.dtype(dtype))
  bits = x.reshape(-1).view(f'u{x.itemsize}').astype(object)
  slow = sum(b * (2 * i + 1) for i, b in enumerate(bits)) % 2**32
  assert digest.leaf_digests({'x': jnp.asarray(x)}) == {'x': slow}


def test_digest_by_hand():
  ones = jnp.array([1, 2, -1], jnp.int32)  # 1·1 + 2·3 - 1·5, modulo 2^32
  assert digest.leaf_digests({'a': ones, 'b': -ones}) == {
      'a': 2, 'b': 2**32 - 2}


def test_manifest_notices_a_change_of_itself():
  made = digest.describe({'w': jnp.ones((2, 3), jnp.bfloat16)})
  entries = digest.check_manifest(made)
  assert entries['w']['shape'] == [2, 3] and entries['w']['dtype'] == 'bfloat16'
  entries['w']['shape'] = [3, 2]
  with pytest.raises(ValueError, match='checksum'):
    digest.check_manifest(made)
