"""Labelled steps: the published forms, labels that are none, rows of tokens."""

import copy
import decimal
import json

import numpy as np
import pytest

from r1jax import errors
from r1jax.data import graded
from r1jax.data import steps
from r1jax.data import templates
from r1jax.data import vocabs

import graded_rows

PLAIN = dict(prompt='1+1+1?', steps=['1+1=2', '2+1=4', 'So 4'],
             labels=[1, .25, None])


def _read(tmp_path, *rows, **options):
  path = tmp_path / 'steps.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows), 'utf-8')
  records, left_out = steps.read_steps(f'jsonl:{path}', 'train', options)
  return [(record['prompt'], record['steps'], record['labels'])
          for record in records], left_out


def test_the_plain_form_and_columns_of_other_names(tmp_path):
  whole = ('1+1+1?', PLAIN['steps'], [1., .25, None])
  assert _read(tmp_path, PLAIN) == ([whole], {})
  other = dict(question='q', completions=['a', 'b'], labels=[True, False],
               soft=[.5, .75])  # TRL's
  assert _read(tmp_path, other)[0] == [('q', ['a', 'b'], [1., 0.])]
  assert _read(tmp_path, other, labels='soft')[0] == [
      ('q', ['a', 'b'], [.5, .75])]
  assert _read(tmp_path, PLAIN, PLAIN | dict(labels=[None] * 3))[1] == {
      'unlabelled': 1}


@pytest.mark.parametrize('blank', ['', ' \n'], ids=repr)
def test_a_step_is_not_blank(tmp_path, blank):
  with pytest.raises(errors.ConfigError, match='not empty in .steps.'):
    _read(tmp_path, dict(prompt='p', steps=['a', blank], labels=[1, 1]))


@pytest.mark.parametrize('none', [
    None, -100, -100., float('nan'), np.float32('nan'), np.int64(-100),
    np.float16(-100), decimal.Decimal(-100)])
def test_a_label_that_is_none_is_none_whatever_its_type(none):
  read = steps._labels([1, none, 0.])
  assert read == [1., None, 0.]
  rows = graded_rows.steps([dict(prompt='q', steps=list('abc'), labels=read)],
                    lambda prompt, texts: ([2], [[3], [4], [5]]), 8)
  batch = rows.take(np.array([0]))
  np.testing.assert_array_equal(batch.real, [[[True, False, True]]])
  np.testing.assert_array_equal(batch.grade, [[[1, 0, 0]]])


@pytest.mark.parametrize('labels, match', [
    ([1, 0], 'as many labels as the 3 steps'), ([1, 2, 0], 'from 0 to 1'),
    ([1, '1', 0], 'a finite number'), ([1, -1, 0], 'from 0 to 1'),
    ([1, float('inf'), 0], 'a finite number'), (1, 'a label for each step')])
def test_other_labels_are_refused(tmp_path, labels, match):
  with pytest.raises(errors.ConfigError, match=f'steps.jsonl:1.*{match}'):
    _read(tmp_path, PLAIN | dict(labels=labels))


@pytest.mark.parametrize('label, expected', [
    (-1, [1., 1., 1.]), (0, [0., None, None]), (1, [1., 0., None])])
def test_process_bench(tmp_path, label, expected):
  row = dict(id='gsm8k-0', generator='g', problem='p', steps=['a', 'b', 'c'],
             final_answer_correct=False, label=label)
  assert _read(tmp_path, row)[0] == [('p', ['a', 'b', 'c'], expected)]
  assert steps.first_error(expected) == label
  with pytest.raises(errors.ConfigError, match='index of one of the 3'):
    _read(tmp_path, row | dict(label=3))


def _prm800k(finish='solution', last=0):
  rated = lambda text, rating: dict(text=text, rating=rating, flagged=None)
  return dict(
      question=dict(problem='p', ground_truth_answer='4'), label=dict(
          finish_reason=finish, steps=[
              dict(completions=[rated('a', 0)], human_completion=None,
                   chosen_completion=0),
              dict(completions=[rated('x', -1), rated('b', 1)],
                   human_completion=None, chosen_completion=1),
              dict(completions=[rated('y', -1)], chosen_completion=None,
                   human_completion=dict(text='c', rating=None)),
              dict(completions=[rated('d', None), rated('z', -1)],
                   human_completion=None, chosen_completion=last)]))


def test_prm800k(tmp_path):
  read, left_out = _read(tmp_path, _prm800k())
  assert not left_out
  assert read == [
      ('p', ['a', 'b', 'c', 'd'], [1., 1., None, None]),
      ('p', ['a', 'x'], [None, 0.]), ('p', ['a', 'b', 'y'], [None, None, 0.]),
      ('p', ['a', 'b', 'c', 'z'], [None, None, None, 0.])]
  for neutral, label in (('wrong', 0.), ('ignored', None)):
    assert _read(tmp_path, _prm800k(), neutral=neutral)[0][0][2] == [
        label, 1., None, None]
  # In phase 2 labelling ends at the first wrong step, and none is chosen.
  read, left_out = _read(tmp_path, _prm800k('found_error', None),
                         _prm800k('give_up'), _prm800k('bad_problem'))
  assert read[0] == ('p', ['a', 'b', 'c'], [1., 1., None])
  assert read[3:] == [('p', ['a', 'b', 'c', 'z'], [None, None, None, 0.])]
  assert left_out == dict(given_up=2, unlabelled=1)  # d, which has no rating
  with pytest.raises(errors.ConfigError, match='one of the 2 completions'):
    _read(tmp_path, _prm800k(last=2))
  with pytest.raises(errors.ConfigError, match='neutral'):
    _read(tmp_path, _prm800k(), neutral='good')


def test_a_blank_step_of_prm800k_is_left_out_and_counted(tmp_path):
  """One beside others; one that was chosen, or written, with all after it."""
  row = _prm800k()
  beside, chosen, written = (copy.deepcopy(row) for _ in range(3))
  beside['label']['steps'][1]['completions'][0]['text'] = ' '
  chosen['label']['steps'][1]['completions'][1]['text'] = '\n'
  written['label']['steps'][2]['human_completion']['text'] = ''
  whole, x, y, z = _read(tmp_path, row)[0]
  begin = lambda steps: ('p', whole[1][:steps], whole[2][:steps])
  blank = dict(blank=1)
  assert _read(tmp_path, beside) == ([whole, y, z], blank)
  assert _read(tmp_path, chosen) == ([begin(1), x], blank)
  assert _read(tmp_path, written) == ([begin(2), x, y], blank)
  assert graded.why_left_out(
      steps.LEFT_OUT, blank) == '1 whose last step is blank'


def test_math_shepherd(tmp_path):
  row = dict(
      input='Ann has 2+2 (two) eggs. How many? Step 1: 2+2=4 eggs. ки\n'
      'Step 2: 4-1=3. ки\nStep 3: The answer is: 3 ки',
      label='Ann has 2+2 (two) eggs. How many? Step 1: 2+2=4 eggs. +\n'
      'Step 2: 4-1=3. -\nStep 3: The answer is: 3 -', task='GSM8K')
  assert _read(tmp_path, row)[0] == [(
      'Ann has 2+2 (two) eggs. How many?',
      ['Step 1: 2+2=4 eggs.', 'Step 2: 4-1=3.', 'Step 3: The answer is: 3'],
      [1., 0., 0.])]
  for broken in (dict(label=row['label'][:-2]), dict(input='no mark'),
                 dict(label=row['label'].replace('4-1', '4-2')),
                 # More steps than marks, and more marks than steps.
                 dict(input='Q? Step 1: a ки\nStep 2: b',
                      label='Q? Step 1: a +'),
                 dict(input='Q? Step 1: a ки ки',
                      label='Q? Step 1: a + +')):
    with pytest.raises(errors.ConfigError, match='with [+] or - for each'):
      _read(tmp_path, row | broken)


@pytest.mark.parametrize('row', [
    PLAIN, _prm800k(), dict(problem='p', steps=['a', 'b'], label=1), dict(
        input='1? Step 1: a ки\nStep 2: b ки',
        label='1? Step 1: a +\nStep 2: b -')], ids=[
            'plain', 'prm800k', 'process_bench', 'math_shepherd'])
def test_a_damaged_row_is_read_or_named(tmp_path, row):
  """Each value of a row in turn replaced by others."""
  others = (None, True, 7, -3, .5, '', 'x', [], [None], [3], {}, {'a': 1},
            [{}], float('nan'))

  def damaged(value):
    yield from others
    for key in (value if isinstance(value, dict) else range(len(value))
                if isinstance(value, list) else ()):
      for inner in damaged(value[key]):
        copy = value.copy()
        copy[key] = inner
        yield copy
      if isinstance(value, dict):
        yield {k: v for k, v in value.items() if k != key}

  refused = 0
  for bad in damaged(row):
    if not isinstance(bad, dict):
      continue
    try:
      for _, texts, labels in _read(tmp_path, bad)[0]:
        assert len(texts) == len(labels)
        assert all(label is None or 0 <= label <= 1 for label in labels)
    except errors.ConfigError as problem:
      refused += 1
      assert 'steps.jsonl' in str(problem)
  assert refused > 10


def test_a_step_ends_with_its_separator_and_shows_no_label():
  vocab = vocabs.load_vocab('sentencepiece', 'mini')
  encode = templates.step_encoder('mini', vocab)
  asked, said = encode('1+1?', ['First 1+1=2. ', '\nThen 2+1=3.\n'])
  assert vocab.decode(asked) == 'User: 1+1?\nAssistant:'
  assert [vocab.decode(sum(said[:n], asked)) for n in (1, 2)] == [
      'User: 1+1?\nAssistant: First 1+1=2.\n',
      'User: 1+1?\nAssistant: First 1+1=2.\n Then 2+1=3.\n']
  other = templates.step_encoder('mini', vocab, separator=' |')
  assert vocab.decode(sum(other('1+1?', ['a\n', 'b'])[1], [])) == ' a | b |'
  bare = templates.step_encoder('mini', vocab, separator='')
  asked, said = bare('1+1?', [' So 2.\n', 'The', ' end. ', '4'])
  assert vocab.decode(sum(said, asked)) == (
      vocab.decode(asked) + ' So 2.\nThe end. 4')
  record = PLAIN | dict(task='t')
  rows = [graded_rows.steps([record | dict(labels=labels)], encode, 64).take(
      np.array([0])) for labels in ([1., 0., 0.], [0., 1., .5])]
  for name in ('tokens', 'segment', 'parent', 'position', 'end'):
    np.testing.assert_array_equal(
        *(getattr(batch, name) for batch in rows))
  assert not np.array_equal(rows[0].grade, rows[1].grade)


def test_rows_hold_whole_responses_and_the_ends_of_their_steps():
  rng = np.random.default_rng(0)
  records = [dict(prompt=[n], task='t', place='', steps=[
      rng.integers(2, 30, rng.integers(1, 4)).tolist() for _ in range(n % 4 + 1)
  ]) for n in range(20)]
  for record in records:
    record['labels'] = [None, *np.linspace(0, 1, len(record['steps']))][1:]
  rows = graded_rows.steps(records, lambda prompt, texts: (prompt, texts), 16, 10)
  assert rows.counts == dict(too_long=20 - len(rows.records))
  index = np.arange(rows.size)
  batch, record_BS = rows.take(index), rows.record(index)
  seen = []
  for b, s in np.argwhere(record_BS >= 0):
    record = rows.records[record_BS[b, s]]
    seen.append(record_BS[b, s])
    own = batch.segment[b] == batch.parent[b].reshape(-1)[batch.end[b, s, 0]]
    tokens = batch.tokens[b][own].tolist()
    assert tokens == sum(record['steps'], record['prompt'])
    np.testing.assert_array_equal(
        batch.position[b][own], np.arange(len(tokens)))
    for k, step in enumerate(record['steps']):
      assert batch.tokens[b, batch.end[b, s, k]] == step[-1]
      assert batch.grade[b, s, k] == np.float32(record['labels'][k])
    assert batch.real[b, s].sum() == len(record['steps'])
  assert sorted(seen) == list(range(len(rows.records)))
  with pytest.raises(errors.ConfigError, match='preference.length'):
    graded_rows.steps(records, lambda prompt, texts: (prompt, texts), 1)
