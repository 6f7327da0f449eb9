"""Metrics of a run: when they are fetched, their rows, the progress line."""

import contextlib
import errno
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import errors
from r1jax import types as r1_types
from r1jax.training import files
from r1jax.training import logger
from r1jax.training import timing

# A device works through what it is given. The clock is turned by hand: a step
# takes 30 seconds, of which a rollout is 20, an evaluation 7, a save 5.
STEP, ROLLOUT, EVALUATION, SAVE = 30., 20., 7., 5.


class Clock:
  now = 100.

  def __call__(self):
    return self.now


class Device:
  """Does one thing after the other; a value is there when its turn is over.

  A value that is not there turns the clock when it is waited for.
  """

  def __init__(self, clock):
    self._clock, self._free_at = clock, clock.now

  def run(self, seconds):
    """Dispatches a program; the value that it will give."""
    self._free_at = max(self._clock.now, self._free_at) + seconds
    return Value(self._clock, self._free_at)


class Value:
  """A zero that is there when its program is done."""

  def __init__(self, clock, done):
    self._clock, self._done = clock, done

  def is_ready(self):
    return self._clock.now >= self._done

  def block_until_ready(self):
    self._clock.now = max(self._clock.now, self._done)
    return self

  def __array__(self, dtype=None, copy=None):
    self.block_until_ready()
    return np.zeros((), dtype or np.float32)

  def __jax_array__(self):
    return jnp.zeros(())


def waits(device, clock, state):
  """A step that returns when all of it is done."""
  del clock, state
  return device.run(STEP).block_until_ready(), {}


def dispatches(device, clock, state):
  """A step that waits for nothing."""
  del clock, state
  return device.run(STEP), {}


def rolls_out(device, clock, state):
  """A step that waits for its rollout and dispatches its update."""
  rollout = device.run(ROLLOUT)
  state.block_until_ready()
  readings = {timing.BEGAN: clock.now}
  rollout.block_until_ready()
  readings[timing.ROLLED_OUT] = clock.now
  return device.run(STEP - ROLLOUT), readings


@pytest.fixture(name='clock')
def _clock():
  return Clock()


def _log(workdir, clock=None, **kwargs):
  return logger.Log(
      workdir, {'loss': 'loss'}, tensorboard=False,
      clock=timing.Clock(read=clock) if clock else timing.Clock(),
      **dict(total_steps=6, max_skipped_steps=2) | kwargs)


def _state(skipped):
  return r1_types.TrainState(None, {}, {}, None, skipped)


def _rows(workdir):
  return files.read_rows(workdir / 'metrics.jsonl')


@pytest.mark.parametrize('step', [waits, dispatches, rolls_out])
def test_the_time_of_a_step_is_its_own(tmp_path, clock, step):
  """Of every step, the last included, whatever happens between them."""
  device, log = Device(clock), _log(tmp_path, clock)
  value = device.run(0)
  for number in range(6):
    value, readings = step(device, clock, value)

    def evaluate():
      assert [row['step'] for row in _rows(tmp_path)] == [0, 1, 2]
      clock.now += EVALUATION
      return {'eval/pass@1': .5}

    log.take(number, {'loss': value, 'perf/tokens': 600} | readings,
             _state(value), evaluate if number == 3 else None)
    if number in (2, 5):
      with log.aside(_state(value)):
        # On disk before the save.
        assert len(_rows(tmp_path)) == number + 1
        clock.now += SAVE
  log.close()
  rows = _rows(tmp_path)
  assert [row['time/step_seconds'] for row in rows] == [STEP] * 6
  assert [row['perf/tokens_per_second'] for row in rows] == [600 / STEP] * 6
  assert [row['step'] for row in rows if 'eval/pass@1' in row] == [3]
  parts = [(row['timing/rollout_seconds'], row['timing/update_seconds'])
           for row in rows if 'timing/rollout_seconds' in row]
  assert parts == ([(ROLLOUT, STEP - ROLLOUT)] * 6 if step is rolls_out else [])
  assert not any({timing.BEGAN, timing.ROLLED_OUT} & row.keys() for row in rows)


def test_a_rollout_is_all_that_its_step_waits_for(tmp_path, clock):
  """The device never stands still: each program is queued in time."""
  log, device = _log(tmp_path, clock), Device(clock)
  value = device.run(0)
  for number in range(3):
    value, readings = rolls_out(device, clock, value)
    assert clock.now == 100 + number * STEP + ROLLOUT
    log.take(number, {'loss': value} | readings, _state(value))
    assert clock.now == 100 + number * STEP + ROLLOUT
    assert [row['step'] for row in _rows(tmp_path)] == [*range(number)]
  log.close()


def test_figures_that_are_there_are_reported_at_once(tmp_path, clock):
  log = _log(tmp_path, clock)
  log.take(0, {'loss': 1.}, _state(Device(clock).run(0)))
  assert [row['step'] for row in _rows(tmp_path)] == [0]
  log.close()


def test_figures_on_their_way_are_not_waited_for(tmp_path, clock):
  log, device = _log(tmp_path, clock), Device(clock)
  for step in range(3):
    value = device.run(STEP)
    log.take(step, {'loss': value}, _state(value))
    assert clock.now == 100 + step * STEP  # the step itself is still to come
    assert [row['step'] for row in _rows(tmp_path)] == list(range(step))
  log.close()


def test_the_progress_line_shows_the_step_that_was_taken(
    tmp_path, clock, capsys):
  log = _log(tmp_path, clock, total_steps=1)
  log.take(0, {'loss': 1.25}, _state(Device(clock).run(0)))
  assert capsys.readouterr().err == 'step 1/1  loss 1.25\n'
  log.close()


def test_metrics_are_waited_for_by_themselves(tmp_path, clock):
  """A critic's, which are there later than the policy's."""
  log, device = _log(tmp_path, clock), Device(clock)
  policy, critic = device.run(0), device.run(STEP)
  log.take(0, {'loss': critic}, _state(policy))
  assert not _rows(tmp_path) and clock.now == 100
  log.close()


def test_a_step_whose_metrics_are_there_may_still_be_under_way(
    tmp_path, clock, monkeypatch):
  monkeypatch.setattr(logger, '_skipped', lambda state: state.skipped)
  log = _log(tmp_path, clock)
  log.take(0, {'loss': 1.}, _state(Device(clock).run(STEP)))
  assert not _rows(tmp_path) and clock.now == 100
  log.close()


def test_a_state_may_be_donated_once_it_was_taken(tmp_path):
  log, state = _log(tmp_path), _state(jnp.int32(1))
  log.take(0, {}, state)
  state.skipped.delete()
  log.take(1, {}, _state(jnp.int32(2)))
  with pytest.raises(logger.Diverged, match='step 1'):
    log.take(2, {}, _state(jnp.int32(0)))
  log.close()


def test_a_row_that_cannot_be_written_is_told_before_a_save(
    tmp_path, monkeypatch):
  def full(path, rows):
    del rows
    raise errors.RunError(f'{path}: no space')

  log, flushed = _log(tmp_path), []
  monkeypatch.setattr(log._writer, 'flush', lambda: flushed.append(True))
  log.take(0, {}, _state(jnp.int32(0)))
  with log.aside(_state(jnp.int32(0))):
    assert flushed
  monkeypatch.setattr(files, 'append_rows', full)
  log.take(1, {}, _state(jnp.int32(0)))
  with pytest.raises(errors.RunError, match='metrics.jsonl: no space'):
    with log.aside(_state(jnp.int32(0))):
      raise AssertionError('saved')


def test_a_critic_s_skipped_updates_count_too(tmp_path):
  log = _log(tmp_path)
  state = _state(jnp.int32(0))._replace(critic=_state(jnp.int32(3)))
  log.take(0, {}, state)
  with pytest.raises(logger.Diverged):
    log.take(1, {}, state)
  log.close()


def test_too_many_skipped_updates_in_a_row(tmp_path):
  log = _log(tmp_path)
  log.take(0, {}, _state(jnp.int32(1)))
  log.take(1, {}, _state(jnp.int32(2)))
  with pytest.raises(logger.Diverged, match='step 1: 2 updates in a row'):
    log.take(2, {}, _state(jnp.int32(3)))
  log.close()
  assert [row['step'] for row in _rows(tmp_path)] == [0, 1]


def _row(step):
  return {'loss': jnp.float32(step / 3), 'reward': np.float64(step),
          'tokens': jnp.int32(10 * step), 'share': step / 7}


def _run(workdir, start, stop):
  writer = logger.MetricWriter(workdir, tensorboard=False)
  for step in range(start, stop):
    writer.write(step, _row(step))
  return writer


def test_rows_hold_plain_numbers(tmp_path):
  _run(tmp_path, 0, 2).close()
  assert files.read_rows(tmp_path / 'metrics.jsonl')[1] == {
      'step': 1, 'loss': float(np.float32(1 / 3)), 'reward': 1., 'tokens': 10,
      'share': 1 / 7}


@pytest.mark.parametrize('size', [0, 2])
def test_what_is_not_a_scalar_is_refused_by_name(tmp_path, size):
  writer = _run(tmp_path, 0, 0)
  with pytest.raises(ValueError, match=rf'metric kl: .* shape \({size},\)'):
    writer.write(0, {'kl': jnp.zeros(size)})


def test_only_the_first_process_writes(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  writer = _run(tmp_path / 'other', 0, 2)
  writer.flush()
  writer.close()
  assert not (tmp_path / 'other').exists()
  log = _log(tmp_path / 'other')
  log.take(0, {'loss': 1.}, _state(jnp.int32(0)))
  log.close()
  assert not capsys.readouterr().err


def _events(workdir):
  """{name: [(step, value)]}, as TensorBoard reads them."""
  events = pytest.importorskip(
      'tensorboard.backend.event_processing.event_accumulator'
  ).EventAccumulator(str(workdir / 'tensorboard'))
  events.Reload()
  return {name: [(event.step, event.value) for event in events.Scalars(name)]
          for name in events.Tags()['scalars']}


def test_tensorboard_holds_the_same_values(tmp_path):
  writer = logger.MetricWriter(tmp_path, tensorboard=True)
  for step in range(3):
    writer.write(step, _row(step))
  writer.flush()  # enough for a reader, without a close
  found = _events(tmp_path)
  writer.close()
  assert sorted(found) == ['loss', 'reward', 'share', 'tokens']
  for name, values in found.items():
    np.testing.assert_allclose(
        values, [(n, np.float32(_row(n)[name])) for n in range(3)], rtol=1e-7)


def test_a_resumed_run_goes_on_in_another_file(tmp_path):
  for start in (0, 2, 1):
    writer = logger.MetricWriter(tmp_path, tensorboard=True)
    writer.write(start, {'loss': start})
    writer.close()
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 3
  assert _events(tmp_path)['loss'] == [(0, 0), (2, 2), (1, 1)]


PROGRAM = """
import sys
from r1jax import errors
from r1jax.training import logger
logger.MetricWriter(sys.argv[1], tensorboard=True).write(0, {'loss': 1.})
assert 'tensorboard' in sys.modules and 'tensorflow' not in sys.modules
for name in [name for name in sys.modules if name.startswith('tensorboard')]:
  del sys.modules[name]
sys.modules['tensorboard'] = None  # as if it were not installed
logger.MetricWriter(sys.argv[1], tensorboard=False).write(1, {'loss': 1.})
try:
  logger.MetricWriter(sys.argv[1], tensorboard=True)
except errors.ConfigError as error:
  print(error)
"""


def test_tensorboard_needs_no_tensorflow_and_nothing_needs_tensorboard(
    tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', PROGRAM, str(tmp_path)], text=True, check=True,
      capture_output=True)
  assert done.stdout.startswith('config.log.tensorboard: the package ')
  assert 'pip install tensorboard' in done.stdout
  assert '--config.log.tensorboard=False' in done.stdout


class _Full(io.BytesIO):
  """A file whose `method` finds no space."""

  def __init__(self, method):
    super().__init__()
    self._method = method

  def _do(self, name, *args):
    if name == self._method:
      raise OSError(errno.ENOSPC, 'no space')
    return getattr(io.BytesIO, name)(self, *args)

  def write(self, data):
    return self._do('write', data)

  def flush(self):
    return self._do('flush')

  def close(self):
    return self._do('close')


@pytest.mark.parametrize('fails', ['open', 'write', 'flush', 'close', None])
def test_tensorboard_ends_with_a_warning_and_the_run_goes_on(
    tmp_path, monkeypatch, caplog, fails):
  opened = []
  def open_(path, mode):
    opened.append((path, mode))
    if fails == 'open':
      raise OSError(errno.ENOSPC, 'no space')
    return _Full(fails)
  monkeypatch.setattr(logger, 'open', open_, raising=False)
  writer = logger.MetricWriter(tmp_path, tensorboard=True)
  for step in range(2):
    writer.write(step, {'loss': 1.})
    writer.flush()
  writer.close()
  assert len(_rows(tmp_path)) == 2 and len(opened) == 1
  assert [(str(tmp_path) in text, 'no space' in text)
          for text in caplog.messages] == (fails is not None) * [(True, True)]


VALUES = {'reward': 0.51234, 'length': 104.4, 'tokens/s': 12345.6}


class _Terminal(io.StringIO):
  """A terminal that does not tell its width."""
  encoding = 'utf-8'

  def isatty(self):
    return True


def _steps(out, total=10, seconds=1., stop=None, values=VALUES):
  clock = Clock()
  shown = logger.Progress(total, out, now=clock)
  clock.now += 60  # an evaluation, and the first step compiles
  for step in range(1, (stop or total) + 1):
    shown.update(step, values)
    clock.now += seconds
  return shown


def test_a_log_gets_a_line_every_two_seconds_and_the_last():
  out = io.StringIO()
  _steps(out, total=11, seconds=.9).close()
  lines = out.getvalue().splitlines()
  assert [line.split('/')[0] for line in lines] == [
      'step  1', 'step  4', 'step  7', 'step 10', 'step 11']
  assert '\r' not in out.getvalue() and '\x1b' not in out.getvalue()


def test_values_are_short_and_time_left_omits_the_first_step():
  out = io.StringIO()
  _steps(out, total=4000, seconds=2., stop=2)
  assert out.getvalue().splitlines() == [
      'step    1/4000  reward 0.512  length 104  tokens/s 12.3k',
      'step    2/4000  reward 0.512  length 104  tokens/s 12.3k  2:13:16 left']


def test_a_terminal_gets_one_line_redrawn():
  out = _Terminal()
  shown = _steps(out, stop=5, values={'reward': .5})
  *_, last = out.getvalue().split('\r')
  assert last.startswith('━' * 8 + '─' * 8 + '  step  5/10') and (
      last.endswith('0:05 left\x1b[K'))
  assert '\n' not in out.getvalue()
  shown.close()
  assert out.getvalue().endswith('left\x1b[K\n')


def test_nothing_shown_leaves_nothing():
  out = _Terminal()
  logger.Progress(3, out).close()
  assert not out.getvalue()


def test_a_terminal_without_the_bar_s_characters_gets_plain_ones():
  out = _Terminal()
  out.encoding = 'ascii'
  _steps(out, stop=5, values={})
  assert '========--------' in out.getvalue() and out.getvalue().isascii()


def _drain(leader):
  """What a closed terminal still holds; it comes in pieces, then EIO."""
  data = b''
  with contextlib.suppress(OSError):
    while piece := os.read(leader, 4096):
      data += piece
  os.close(leader)
  return data


@pytest.mark.parametrize('columns', [0, 1, 2, 20, 60, 200])
def test_no_width_is_overrun(columns):
  leader, follower = pty.openpty()
  fcntl.ioctl(follower, termios.TIOCSWINSZ,
              struct.pack('HHHH', 24, columns, 0, 0))
  with open(follower, 'w', encoding='utf-8') as out:
    _steps(out, stop=3)
  drawn = _drain(leader).decode()
  longest = max(map(len, drawn.replace('\x1b[K', '').split('\r')))
  assert longest <= (columns or 80) - 1
  assert columns < 20 or 'step  3/10' in drawn
  assert ('━' in drawn) == (columns in (0, 200))


def test_the_bar_takes_the_room_that_is_left():
  out = _Terminal()
  _steps(out, stop=5)
  line = out.getvalue().split('\r')[-1].removesuffix('\x1b[K')
  assert line.startswith('━') and len(line) == 79
  assert 6 <= line.count('━') + line.count('─') < 16


def test_odd_values_are_shown():
  out = io.StringIO()
  logger.Progress(0, out).update(0, {'a': float('nan'), 'b': -3.2e7})
  assert out.getvalue() == 'step 0/0  a nan  b -32.0M\n'
  out = _Terminal()
  logger.Progress(0, out).update(0)
  assert out.getvalue().startswith('\r─') and 'step 0/0' in out.getvalue()
