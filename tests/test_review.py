"""A person who accepts, edits, drops, takes back, stops and goes on."""

import json
import pathlib
import subprocess
import sys

import pytest

from r1jax import review
from r1jax.training import jsonl

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
  return counts, shown, jsonl.read(out)


def test_each_is_accepted_edited_or_dropped(tmp_path):
  counts, shown, kept = _review(tmp_path / 'out.jsonl', 'aedad')
  assert counts == dict(accepted=2, edited=1, dropped=2, left=0)
  assert kept == [
      RECORDS[0] | dict(review='accepted'),
      RECORDS[1] | dict(review='edited', response='r1!'),
      RECORDS[3] | dict(review='accepted')]
  assert '2 of 5   t   stage s, id 1' in shown[1] and 'r1' in shown[1]


def test_stopped_anywhere_it_goes_on_behind_what_was_decided(tmp_path):
  _, _, whole = _review(tmp_path / 'whole.jsonl', 'aedad')
  out = tmp_path / 'parts.jsonl'
  assert _review(out, 'aq')[0] == dict(accepted=1, edited=0, dropped=0, left=4)
  counts, shown, kept = _review(out, 'ed')  # the input ends
  assert counts['left'] == 2 and kept == whole[:2] and 'r1' in shown[0]
  # A kill in the middle of a decision leaves a torn line.
  with open(f'{out}.decisions', 'a', encoding='utf-8') as file:
    file.write('{"id": "')
  assert _review(out, 'ad')[2] == whole
  assert _review(out, '')[2] == whole


def test_a_decision_can_be_taken_back_also_after_a_stop(tmp_path):
  out = tmp_path / 'out.jsonl'
  _review(out, 'daq')
  _, shown, kept = _review(out, 'uuaeddd')
  assert [record['review'] for record in kept] == ['accepted', 'edited']
  assert ['r2' in shown[0], 'r1' in shown[1], 'r0' in shown[2]] == [True] * 3


def test_what_is_no_key_asks_again(tmp_path):
  assert _review(tmp_path / 'o', ['', 'x', ' Accept ', 'q'])[0]['accepted'] == 1


def test_an_editor_that_fails_changes_nothing(tmp_path, monkeypatch):
  out, shown = tmp_path / 'new' / 'out.jsonl', []
  for editor in ('/no/such/editor', 'false'):
    monkeypatch.setenv('EDITOR', editor)
    keys = iter('ea')
    with pytest.raises(StopIteration):
      review.review([RECORDS[0], RECORDS[1] | dict(source='a book')], out,
                    ask=lambda line: next(keys), say=shown.append)
    out.with_name('out.jsonl.decisions').unlink()
  assert sum('not edited: ' in text for text in shown) == 2
  assert 'a book' in shown[-1]


def test_ctrl_c_stops_as_q_does(tmp_path):
  def ask(line):
    raise KeyboardInterrupt(line)
  counts = review.review(RECORDS, tmp_path / 'out', ask=ask, say=len)
  assert counts['left'] == 5 and (tmp_path / 'out').exists()


def test_the_command(tmp_path):
  path = tmp_path / 'kept-00000.jsonl'
  jsonl.append(path, RECORDS)
  run = lambda keys, source=tmp_path / 'kept-*.jsonl': subprocess.run(
      [sys.executable, '-m', 'r1jax.review', f'--candidates={source}',
       f'--out={tmp_path}/out.jsonl'], input=keys, cwd=ROOT, text=True,
      capture_output=True, check=False)
  done = run('a\nd\n')
  assert done.returncode == 0, done.stderr
  assert 'accepted 1, edited 0, dropped 1, left 3' in done.stdout
  assert jsonl.read(tmp_path / 'out.jsonl') == [
      RECORDS[0] | dict(review='accepted')]
  path.write_text(json.dumps(dict(prompt='p')) + '\n')
  for source, word in ((path, "field 'response'"), (tmp_path / 'no', 'no such')):
    done = run('', source)
    assert done.returncode == 2 and word in done.stderr
    assert done.stderr.startswith('error: --candidates')


def test_the_editor_is_that_of_the_environment(tmp_path, monkeypatch):
  script = tmp_path / 'edit.py'
  script.write_text('import sys\nopen(sys.argv[1], "a").write(" more\\n")\n')
  monkeypatch.setenv('EDITOR', f'{sys.executable} {script}')
  assert review._in_editor('text 我') == 'text 我 more'
