"""A person who accepts, edits, drops, takes back, stops and goes on."""

import json
import pathlib
import shlex
import subprocess
import sys

import pytest

from r1jax import errors
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


def test_ctrl_c_in_the_editor_asks_again(tmp_path):
  def interrupted(text):
    raise KeyboardInterrupt(text)
  keys, shown = iter('eq'), []
  def ask(line):
    del line
    return next(keys)
  counts = review.review(RECORDS, tmp_path / 'out', ask=ask, say=shown.append,
                         edit=interrupted)
  assert counts['left'] == 5 and shown[1] == 'not edited: interrupted'
  assert 'r0' in shown[2]


@pytest.mark.parametrize('field', ['prompt', 'response', 'task', 'source'])
def test_a_candidate_does_not_steer_the_terminal(tmp_path, field):
  shown = []
  text = 'so\x1b[2K\r\tgood\n\x9b1A 我\u202e\u200b\x00\ud800'
  review.review([RECORDS[0] | {field: text}], tmp_path / 'out',
                ask=lambda line: 'q', say=shown.append)
  assert (r'so\x1b[2K\r' + '\tgood\n' + r'\x9b1A 我\u202e\u200b\x00\ud800'
          ) in shown[0]


def test_ctrl_c_stops_as_q_does(tmp_path):
  def ask(line):
    raise KeyboardInterrupt(line)
  counts = review.review(RECORDS, tmp_path / 'out', ask=ask, say=len)
  assert counts['left'] == 5 and (tmp_path / 'out').exists()


def test_the_command(tmp_path):
  path = tmp_path / 'kept-00000.jsonl'
  files.append_rows(path, RECORDS)
  run = lambda keys, source=tmp_path / 'kept-*.jsonl': subprocess.run(
      [sys.executable, '-m', 'r1jax.review', f'--candidates={source}',
       f'--out={tmp_path}/out.jsonl'], input=keys, cwd=ROOT, text=True,
      capture_output=True, check=False)
  done = run('a\nd\n')
  assert done.returncode == 0, done.stderr
  assert 'accepted 1, edited 0, dropped 1, left 3' in done.stdout
  assert files.read_rows(tmp_path / 'out.jsonl') == [
      RECORDS[0] | dict(review='accepted')]
  before = path.read_bytes()
  done = run('d\n' * 5, tmp_path / '*.jsonl')
  assert done.returncode == 2 and path.read_bytes() == before
  assert done.stderr.startswith('error: --out: ')
  path.write_text(json.dumps(dict(prompt='p')) + '\n')
  for source, word in (
      (path, "field 'response'"), (tmp_path / 'no', 'no such')):
    done = run('', source)
    assert done.returncode == 2 and word in done.stderr
    assert done.stderr.startswith('error: --candidates')


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
