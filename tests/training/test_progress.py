"""Progress on terminals of any width, and in logs."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from r1jax.training import logger

VALUES = {'reward': 0.51234, 'length': 104.4, 'tokens/s': 12345.6}


class _Clock:
  now = 100.

  def __call__(self):
    return self.now


class _Terminal(io.StringIO):
  """A terminal that does not tell its width."""
  encoding = 'utf-8'

  def isatty(self):
    return True


def _steps(out, total=10, seconds=1., stop=None, values=VALUES):
  clock = _Clock()
  shown = logger.Progress(total, out, clock=clock)
  clock.now += 60  # an evaluation, and the first step compiles
  for step in range(1, (stop or total) + 1):
    shown.update(step, values)
    clock.now += seconds
  return shown


def test_a_log_gets_a_line_every_two_seconds_and_the_last():
  out = io.StringIO()
  _steps(out, total=10, seconds=.9).close()
  lines = out.getvalue().splitlines()
  assert [line.split('/')[0] for line in lines] == [
      'step  1', 'step  4', 'step  7', 'step 10']
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
