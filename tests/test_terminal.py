"""Nothing that is printed ends a run: closed pipes, full disks, encodings."""

import io
import os
import pathlib
import subprocess
import sys

import pytest

from r1jax import terminal

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = """
from r1jax import terminal
terminal.secure()
import logging, sys, warnings
logging.basicConfig()
for n in range(4000):
  terminal.say(f'step {n} → π')
  print('by another', n, '→')
  print('\\udcff', file=sys.stderr)
logging.warning('logged →')
warnings.warn('warned')
with open(sys.argv[1], 'w') as file:
  assert file.fileno() > 2  # to which XLA may print
  file.write('ended')
"""


def _ends_well(tmp_path, redirect, **environment):
  """Whether a program that prints a lot ends with status 0 and its file."""
  (tmp_path / 'program.py').write_text(PROGRAM)
  command = f'exec {sys.executable} {tmp_path}/program.py {tmp_path}/file'
  done = subprocess.run(
      ['bash', '-c', redirect.replace('RUN', command)], cwd=ROOT, check=False,
      capture_output=True,
      env=os.environ | {'PYTHONPATH': str(ROOT)} | environment)
  return done.returncode == 0 and (tmp_path / 'file').read_text() == 'ended'


@pytest.mark.parametrize('redirect', [
    '(RUN) 2>&1 | head -1; exit ${PIPESTATUS[0]}',
    '(RUN) 2> >(head -1) | head -1; exit ${PIPESTATUS[0]}',
    'RUN >/dev/full 2>/dev/full', 'RUN >&- 2>&-', 'RUN <&- >&-',
    'RUN >/dev/null 2>/dev/null'])
def test_a_program_ends_well_wherever_its_output_goes(tmp_path, redirect):
  assert _ends_well(tmp_path, redirect)


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'utf-8'])
def test_a_program_ends_well_in_any_encoding(tmp_path, encoding):
  assert _ends_well(tmp_path, 'RUN', PYTHONIOENCODING=encoding)


def _stream(encoding):
  return io.TextIOWrapper(io.BytesIO(), encoding)


@pytest.mark.parametrize('encoding, shown', [
    ('ascii', 'a -> b ? ='), ('latin-1', 'a -> b ? ='), ('utf-8', 'a → b π ━')])
def test_what_an_encoding_lacks_is_replaced(encoding, shown):
  stream = _stream(encoding)
  terminal.say('a → b π ━', stream)
  assert stream.buffer.getvalue().decode(encoding) == shown + '\n'


def test_half_of_a_pair_is_replaced_in_utf_8():
  stream = _stream('utf-8')
  terminal.say('a\ud800b', stream, end='')
  assert stream.buffer.getvalue() == b'a?b'


def test_a_stream_that_is_closed_or_not_there_is_passed_over(monkeypatch):
  stream = _stream('utf-8')
  stream.close()
  terminal.say('unheard', stream)
  monkeypatch.setattr(sys, 'stdout', None)
  terminal.say('unheard')


def test_after_a_broken_pipe_a_stream_leads_nowhere():
  """Also without `secure`: the interpreter's flush at its end succeeds."""
  ours, theirs = os.pipe()
  os.close(ours)
  with open(theirs, 'w', encoding='utf-8') as stream:
    for _ in range(3):
      terminal.say('unheard', stream)
    stream.write('by another')
