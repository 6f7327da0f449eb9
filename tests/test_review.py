"""A person who accepts, edits, drops, takes back, stops and goes on."""

import fcntl
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import pytest

from r1jax import errors
from r1jax import interrupts
from r1jax import review
from r1jax.training import files

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECORDS = [dict(prompt=f'p{n}', response=f'r{n}', task='t',
                source=dict(stage='s', id=n)) for n in range(5)]


def _review(out, keys, **more):
  keys = iter(keys)
  shown = []

  def ask(line):
    del line
    try:
      return next(keys)
    except StopIteration:
      raise EOFError from None

  counts = review.review(RECORDS, out, ask=ask, say=shown.append,
                         edit=lambda text: text + '!', **more)
  assert next(keys, None) is None
  return counts, shown, files.read_rows(out)


def test_each_is_accepted_edited_or_dropped(tmp_path):
  counts, shown, accepted = _review(tmp_path / 'out.jsonl', 'aedad')
  assert counts == dict(accepted=2, edited=1, dropped=2, left=0)
  assert accepted == [
      RECORDS[0] | dict(review='accepted'),
      RECORDS[1] | dict(review='edited', response='r1!'),
      RECORDS[3] | dict(review='accepted')]
  assert '2 of 5   t   stage s, id 1' in shown[1] and 'r1' in shown[1]


def test_stopped_anywhere_it_goes_on_behind_what_was_decided(tmp_path):
  _, _, whole = _review(tmp_path / 'whole.jsonl', 'aedad')
  out = tmp_path / 'parts.jsonl'
  assert _review(out, 'aq')[0] == dict(accepted=1, edited=0, dropped=0, left=4)
  counts, shown, accepted = _review(out, 'ed')  # the input ends
  assert counts['left'] == 2 and accepted == whole[:2] and 'r1' in shown[0]
  # A kill in the middle of a decision leaves a torn line.
  with open(f'{out}.decisions', 'a', encoding='utf-8') as file:
    file.write('{"id": "')
  assert _review(out, 'ad')[2] == whole
  assert _review(out, '')[2] == whole


def test_a_decision_can_be_taken_back_also_after_a_stop(tmp_path):
  out = tmp_path / 'out.jsonl'
  _review(out, 'daq')
  _, shown, accepted = _review(out, 'uuaeddd')
  assert [record['review'] for record in accepted] == ['accepted', 'edited']
  assert ['r2' in shown[0], 'r1' in shown[1], 'r0' in shown[2]] == [True] * 3


def test_what_is_no_key_asks_again(tmp_path):
  assert _review(tmp_path / 'o', ['', 'x', ' Accept ', 'q'])[0]['accepted'] == 1


def test_equal_candidates_are_asked_about_and_written_once(tmp_path):
  out, shown = tmp_path / 'out', []
  records = [RECORDS[0], RECORDS[1], RECORDS[0] | dict(task='u'), RECORDS[1]]
  keys = iter('aua')  # the first is accepted, taken back, accepted
  def ask(line):
    del line
    return next(keys, 'q')
  counts = review.review(records, out, ask=ask, say=shown.append)
  assert counts == dict(accepted=1, edited=0, dropped=0, left=1)
  assert files.read_rows(out) == [RECORDS[0] | dict(review='accepted')]
  assert ['1 of 2   t' in text for text in shown] == [True, False, True, False]


def _saves(content):
  """An $EDITOR that saves what Python says that it does."""
  return shlex.join([sys.executable, '-c', 'import sys, pathlib\n'
                     f'pathlib.Path(sys.argv[1]).write_bytes({content!r})'])


def test_an_editor_that_fails_changes_nothing(tmp_path, monkeypatch):
  out, shown = tmp_path / 'new' / 'out.jsonl', []
  editors = ('/no/such/editor', 'false', "vi '", '', _saves(b'caf\xe9'),
             _saves(b' \n\n'))
  for editor in editors:
    monkeypatch.setenv('EDITOR', editor)
    keys = iter('ea')
    with pytest.raises(StopIteration):
      review.review([RECORDS[0], RECORDS[1] | dict(source='a book')], out,
                    ask=lambda line: next(keys), say=shown.append)
    out.with_name('out.jsonl.decisions').unlink()
    # Whatever ends it, what was decided is written.
    assert files.read_rows(out) == [RECORDS[0] | dict(review='accepted')]
  said = [text for text in shown if 'not edited: ' in text]
  reasons = ('No such file', 'non-zero exit', 'quotation', 'denied', 'utf-8',
             'the text is empty')
  assert all(map(str.count, said, reasons)) and len(said) == len(reasons)
  assert 'a book' in shown[-1]


def test_nothing_to_take_back_is_said(tmp_path):
  keys, shown = iter('uq'), []
  review.review([RECORDS[0] | dict(source=dict(draft=dict(step=3)))],
                tmp_path / 'out', ask=lambda line: next(keys),
                say=shown.append)
  assert shown[1] == 'there is no decision to undo'
  assert 'draft.step 3' in shown[0]


def test_ctrl_c_in_the_editor_is_the_editor_s(monkeypatch):
  def stop(*args):
    raise interrupts.Stopped
  monkeypatch.setenv('EDITOR', shlex.join([
      sys.executable, '-c', 'import os, pathlib, signal, sys\n'
      'os.kill(os.getppid(), signal.SIGINT)\n'
      'own = signal.getsignal(signal.SIGINT) == signal.default_int_handler\n'
      'pathlib.Path(sys.argv[1]).write_text(str(own))']))
  before = signal.signal(signal.SIGINT, stop)
  try:
    assert review._in_editor('text') == 'True'
    assert signal.getsignal(signal.SIGINT) == stop
  finally:
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('field', ['prompt', 'response', 'task', 'source'])
def test_a_candidate_does_not_steer_the_terminal(tmp_path, field):
  shown = []
  text = 'so\x1b[2K\r\tgood\n\x9b1A 我\u202e\u200b\x00\ud800'
  review.review([RECORDS[0] | {field: text}], tmp_path / 'out',
                ask=lambda line: 'q', say=shown.append)
  assert (r'so\x1b[2K\r' + '\tgood\n' + r'\x9b1A 我\u202e\u200b\x00\ud800'
          ) in shown[0]


@pytest.mark.parametrize('key', [None, 'a', 'd'])
def test_a_signal_stops_as_q_does(tmp_path, key):
  """While it waits for a key (None), or after it."""
  keys, out = iter('a'), tmp_path / 'out'
  def ask(line):
    del line
    return next(keys, None) or key or os.kill(os.getpid(), signal.SIGTERM)
  def describe(*args):
    if len(files.read_rows(f'{out}.decisions')) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return str(args)
  with pytest.MonkeyPatch.context() as patch, interrupts.handled():
    patch.setattr(review, '_describe', describe)
    counts = review.review(RECORDS, out, ask=ask, say=len)
    assert interrupts.asked()
  assert counts['left'] == (4 if key is None else 3)
  assert len(files.read_rows(out)) == counts['accepted'] == 1 + (key == 'a')


def test_a_signal_while_a_decision_is_written_waits_for_it(
    tmp_path, monkeypatch):
  append = files.append_rows
  def signalled(path, rows):
    monkeypatch.setattr(files, 'append_rows', append)
    os.kill(os.getpid(), signal.SIGTERM)
    append(path, rows)
  def ask(line):
    del line
    if not interrupts.asked():
      monkeypatch.setattr(files, 'append_rows', signalled)
    return 'a'
  with interrupts.handled():
    counts = review.review(RECORDS, tmp_path / 'out', ask=ask, say=len)
  assert (counts['accepted'], counts['left']) == (1, 4)
  for name in ('out', 'out.decisions'):
    assert len(files.read_rows(tmp_path / name)) == 1


def test_a_signal_while_the_accepted_are_written_waits_for_them(
    tmp_path, monkeypatch):
  keys, writes, write = iter('aq'), [], files.write_rows
  def signalled(path, rows):
    writes.append(path)
    if len(writes) == 2:  # the first is the trial
      os.kill(os.getpid(), signal.SIGTERM)
    write(path, rows)
  monkeypatch.setattr(files, 'write_rows', signalled)
  with interrupts.handled():
    review.review(RECORDS, tmp_path / 'out', ask=lambda line: next(keys),
                  say=len)
  assert len(files.read_rows(tmp_path / 'out')) == 1


def test_two_reviews_do_not_write_one_file(tmp_path):
  out = tmp_path / 'out'
  def ask(line):
    del line
    with pytest.raises(errors.ConfigError, match='^--out: another review adds'):
      review.review(RECORDS, out, ask=None)
    return next(keys, 'q')
  keys = iter('auda')  # the file is never replaced, which would be unlocked
  assert review.review(RECORDS, out, ask=ask, say=len)['accepted'] == 1
  assert [row['decision'] for row in files.read_rows(f'{out}.decisions')] == [
      'accepted', 'undone', 'dropped', 'accepted']
  with open(f'{out}.decisions', 'ab') as file:  # free again
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize('name', ['out', 'out.decisions'])
@pytest.mark.parametrize('make, kind', [
    (os.mkdir, 'a folder'), (os.mkfifo, 'a pipe')])
def test_what_is_no_file_is_refused_before_it_asks(tmp_path, name, make, kind):
  make(tmp_path / name)
  with pytest.raises(errors.ConfigError, match=f'^--out: .*{name} is {kind}'):
    review.review(RECORDS, tmp_path / 'out', ask=None)
  assert os.listdir(tmp_path) == [name]


def test_decisions_that_are_none_are_refused(tmp_path):
  files.write_rows(tmp_path / 'out.decisions', [dict(id=3)])
  with pytest.raises(errors.ConfigError, match='^--out: .*expected decisions'):
    review.review(RECORDS, tmp_path / 'out', ask=None)
  assert not (tmp_path / 'out').exists()


def test_a_disk_without_room_is_seen_before_it_asks(tmp_path, monkeypatch):
  def refuse(path, rows):
    raise errors.of_system(28, '', path)
  monkeypatch.setattr(files, 'write_rows', refuse)
  asked = []
  with pytest.raises(errors.RunError, match='out: No space'):
    review.review(RECORDS, tmp_path / 'out', ask=asked.append, say=len)
  assert not asked


@pytest.mark.parametrize('args, said', [
    ([], 'the following arguments are required: --candidates, --out'),
    (['--candidates=a', '--out=b', '--ot=c'], 'unrecognized arguments: --ot=c'),
    (['--candidates=a', '--out=\udcff'], "--out: .*received b'.xff'"),
    (['--candidates=\udcff', '--out=b'], "--candidates: .*received b'.xff'"),
    (['--candidates=no', '--out=b'], '--candidates: no such file: no'),
    (['--candidates=rows.jsonl', '--out=b'],
     "--candidates: .*rows.jsonl:1 has no text in field 'response'"),
    (['--candidates=*.jsonl', '--out=b.jsonl'], '--out: b.jsonl is, or would')])
def test_a_wrong_command_is_one_line_and_status_2(
    tmp_path, monkeypatch, capsys, args, said):
  monkeypatch.chdir(tmp_path)
  files.write_rows('rows.jsonl', [dict(prompt='p')])
  monkeypatch.setattr(sys, 'argv', ['review', *args])
  with pytest.raises(SystemExit) as ended, interrupts.handled():
    review.main()
  line, = capsys.readouterr().err.splitlines()
  assert ended.value.code == 2
  assert re.match(f'error: {said}', line), line
  assert os.listdir() == ['rows.jsonl']


def test_the_command(tmp_path):
  files.append_rows(tmp_path / 'kept-00000.jsonl', RECORDS)
  with subprocess.Popen(
      [sys.executable, '-m', 'r1jax.review', f'--out={tmp_path}/out.jsonl',
       f'--candidates={tmp_path}/kept-*.jsonl'], cwd=ROOT, text=True,
      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
      stderr=subprocess.PIPE) as process:
    process.stdin.write('a\nd\n')
    process.stdin.flush()
    for line in process.stdout:
      if '3 of 5' in line:
        process.send_signal(signal.SIGINT)
        break
    said = process.stdout.read().splitlines()
    assert process.wait() == 75 and not process.stderr.read()
  assert said[-1] == (
      f'accepted 1, edited 0, dropped 1, left 3; {tmp_path}/out.jsonl')
  assert files.read_rows(tmp_path / 'out.jsonl') == [
      RECORDS[0] | dict(review='accepted')]


@pytest.mark.parametrize('source, out', [
    ('kept-*.jsonl', 'kept-00000.jsonl'), ('kept-*.jsonl', 'kept-new.jsonl'),
    ('kept-00000.jsonl', '../{}/kept-00000.jsonl'), ('kept-*.jsonl', 'link'),
    ('{split}.jsonl', 'train.jsonl'), ('*', 'x/../reviewed'),
    ('out.jsonl.decisions', 'out.jsonl')])
def test_what_is_reviewed_is_not_written_over(tmp_path, source, out):
  for name in ('kept-00000.jsonl', 'train.jsonl', 'out.jsonl.decisions'):
    files.write_rows(tmp_path / name, RECORDS)
  (tmp_path / 'link').symlink_to(tmp_path / 'kept-00000.jsonl')
  source, out = f'{tmp_path}/{source}', tmp_path / out.format(tmp_path.name)
  with pytest.raises(errors.ConfigError, match='^--out: '):
    review._candidates(source, out)
  for own in (tmp_path / 'new' / out.name, tmp_path / 'of-its-own'):
    if not source.endswith('*'):
      assert review._candidates(source, own) == RECORDS


def test_the_editor_is_that_of_the_environment(tmp_path, monkeypatch):
  script = tmp_path / 'edit.py'
  script.write_text('import sys\nopen(sys.argv[1], "a").write(" more\\n")\n')
  monkeypatch.setenv('EDITOR', f'{sys.executable} {script}')
  assert review._in_editor('text 我') == 'text 我 more'
