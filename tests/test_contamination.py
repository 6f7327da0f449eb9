"""Tests of the command that looks for benchmarks in training data."""

import json
import pathlib
import subprocess
import sys

import pytest

from r1jax import contamination
from r1jax import errors
from r1jax.data import overlap
from r1jax.training import files
import shared_data

ROOT = pathlib.Path(__file__).resolve().parents[1]
LONG = ('Every morning Ann walks nine kilometers at a constant speed and rests '
        'in a coffee shop for some minutes')


def _write(path, *rows):
  path.parent.mkdir(exist_ok=True)
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def _run(*arguments):
  return subprocess.run(
      [sys.executable, '-m', 'r1jax.contamination', *arguments], cwd=ROOT,
      capture_output=True, text=True, check=False)


@pytest.fixture(name='folder')
def _folder(tmp_path):
  _write(tmp_path / 'gsm8k/test.jsonl',
         dict(question=f'{LONG}?', answer='So #### 204'),
         dict(question='A robe takes 2 bolts of blue fiber', answer='#### 3'))
  _write(tmp_path / 'evaluation_suite/aime.jsonl',
         dict(problem='Find xy.', answer='025'))
  _write(tmp_path / 'train.jsonl',
         dict(messages=[dict(role='user', content=f'Solve: {LONG}!')]),
         dict(text='find XY'))
  return tmp_path


def test_the_command_prints_a_table_and_writes_what_it_finds(folder):
  out = folder / 'out'
  done = _run(f'--train=jsonl:{folder}/train.jsonl', '--suite=gsm8k,aime',
              f'--data={folder}', f'--out={out}')
  assert (done.returncode, done.stderr) == (0, '')
  lines = done.stdout.splitlines()
  assert lines[0].startswith('training set: 2 rows, 23 words; 10 words')
  assert lines[2].split() == ['gsm8k', *'2111101', '50.0%']
  assert lines[3].split() == ['aime', *'1111001', '100.0%']
  report = files.read_json(out / 'contamination.json')
  assert report['n'] == 10 and report['suites']['gsm8k'] == dict(
      problems=2, short=1, exact=1, half=1, question=1, solution=0, any=1)
  row, = files.read_rows(out / 'gsm8k.jsonl')
  assert row['problem'] == 0 and row['question'] == f'{LONG}?'
  assert row['place'] == f'{folder}/train.jsonl:1'
  assert row['words'] == (
      'every morning ann walks nine kilometers at a constant speed')
  row, = files.read_rows(out / 'aime.jsonl')
  assert row['exact'] and row['place'].endswith('train.jsonl:2')


def test_any_source_is_a_suite_and_any_a_training_set(folder):
  problems = contamination.suite_problems(
      f'jsonl:{folder}/gsm8k/test.jsonl', '.')
  assert [p.solution for p in problems] == ['So #### 204', '#### 3']
  places = [place for place, _ in contamination.training_texts(
      f'jsonl:{folder}/train.jsonl', 'train[1:]')]
  assert places == [f'{folder}/train.jsonl:2']
  for task in ('mini_general', 'mini_corpus', 'mini_writing'):
    place, texts = next(contamination.training_texts(task, count=8))
    assert place == f'{task}[0]' and texts and all(texts)
  held_out = contamination.suite_problems('mini_reasoning', '.')
  assert len(held_out) == 512
  found = overlap.overlaps({'mini': held_out}, contamination.training_texts(
      'mini_reasoning', count=64), 10)['mini']
  assert found.counts()['exact'] == 0  # the splits are disjoint


@pytest.mark.parametrize('arguments, said', [
    (('--suite=gsm9k',), '--suite: expected one or several, by comma, of'),
    (('--suite=gsm8k', '--data=NOWHERE'), '--suite: no such file: NOWHERE'),
    (('--suite=,',), '--suite: expected a suite'),
    (('--suite=aime', '--n=0'), '--n: expected at least 1'),
    (('--suite=aime', '--train=mini_writing', '--rows=100000'),
     '--train: count 100000 is more'),
    (('--suite=aime', '--train=what:x'), '--train: expected one of'),
])
def test_what_is_wrong_is_one_line(
    folder, monkeypatch, capsys, arguments, said):
  monkeypatch.setattr(sys, 'argv', [
      'contamination', f'--train=jsonl:{folder}/train.jsonl',
      f'--data={folder}', *arguments])
  monkeypatch.setattr(contamination.interrupts, 'begin', lambda: None)
  with pytest.raises(SystemExit) as ended:
    contamination.main()
  assert ended.value.code == 2
  error, = capsys.readouterr().err.splitlines()
  assert error.startswith(f'error: {said}')


def test_a_training_set_that_cannot_be_read_is_named():
  with pytest.raises(errors.ConfigError, match='no such file'):
    list(contamination.training_texts('jsonl:NOWHERE.jsonl', 'train'))


def test_gsm8k_has_no_test_question_in_its_training_set():
  train, test = (shared_data.path(f'gsm8k/{name}.jsonl')
                 for name in ('train', 'test'))
  suites = {'gsm8k': contamination.suite_problems(f'jsonl:{test}', '.')}
  found = overlap.overlaps(suites, contamination.training_texts(
      f'jsonl:{train}', 'train'), contamination.N)['gsm8k']
  assert found.counts() == dict(
      problems=1319, short=0, exact=0, half=1, question=9, solution=61, any=68)
  # The trap: a 'training set' of both.
  both = overlap.overlaps(suites, contamination.training_texts(
      f'jsonl:{test}', 'train'), contamination.N)['gsm8k']
  assert both.counts()['exact'] == 1319
