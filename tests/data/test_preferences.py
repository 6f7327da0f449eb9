"""Preferences: read from files, balanced, encoded, laid out in rows."""

import gzip
import json

import numpy as np
import pytest

from r1jax import errors
from r1jax.data import preferences
from r1jax.data import templates
from r1jax.data import thinking
from r1jax.data import vocabs
import graded_rows
import shared_data

TALK = '\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: How? \n\nAssistant:'


def _file(tmp_path, *rows, name='pairs.jsonl'):
  path = tmp_path / name
  text = ''.join(json.dumps(row) + '\n' for row in rows).encode()
  path.write_bytes(gzip.compress(text) if name.endswith('gz') else text)
  return path


def _read(path, split='train', **options):
  records, _ = preferences.read_preferences(f'jsonl:{path}', split, options)
  return records


@pytest.mark.parametrize('name', ['pairs.jsonl', 'pairs.jsonl.gz'])
def test_hh_pairs_become_messages_and_two_answers(tmp_path, name):
  path = _file(tmp_path, dict(chosen=f'{TALK} Well.', rejected=f'{TALK} Bad.'),
               dict(chosen=f'{TALK} Well.',
                    rejected='\n\nHuman: Other\n\nAssistant: Bad.'), name=name)
  found, left_out = preferences.read_preferences(f'jsonl:{path}', 'train', {})
  assert list(found) == [dict(
      prompt=[dict(role='user', content='Hi'),
              dict(role='assistant', content='Hello!'),
              dict(role='user', content='How?')],
      responses=['Well.', 'Bad.'], grades=[1., 0.], task='pairs',
      place=f'{path}:1')]
  assert left_out == dict(unlike=1)


def test_other_forms_and_parts_of_a_split(tmp_path):
  path = _file(tmp_path, dict(prompt='a', chosen='b', rejected='c'),
               dict(prompt='a', responses=['b', 'c', 'd'], grades=[1, 0, 0.5]))
  assert [r['responses'] for r in _read(path)] == [['b', 'c'], ['b', 'c', 'd']]
  assert [len(_read(path, split)) for split in ('train[:1]', 'train[1:]')] == [
      1, 1]
  assert _read(path, 'train[1:]')[0]['grades'] == [1, 0, 0.5]


@pytest.mark.parametrize('row, match', [
    (dict(prompt='a', responses=['b'], grades=[1, 2]), 'as many grades'),
    (dict(prompt='a', responses=[], grades=[]), "texts in 'responses'"),
    (dict(prompt='a', responses=['b', 3], grades=[1, 2]),
     "a text in 'responses', received 3"),
    (dict(prompt='a', responses=['b', 'c'], grades=[1, True]),
     "a finite number in 'grades', received True"),
    (dict(prompt='a', responses=['b', 'c'], grades=[1, float('nan')]),
     "a finite number in 'grades', received nan"),
    (dict(prompt=None, chosen='b', rejected='c'), "in 'prompt', received None"),
    (dict(prompt=[], chosen='b', rejected='c'), "messages, .* in 'prompt'"),
    (dict(prompt='a', chosen='b', rejected=None), "a text in 'rejected'"),
    (dict(prompt='a', chosen='b', rejected=[TALK]), "a text in 'rejected'"),
    (dict(prompt='a', responses=['b', 'c']), "no field 'grades'"),
    (dict(prompt='a', chosen='b'), "no field 'rejected'"),
    (dict(chosen='no talk', rejected='no talk'), 'starts with'),
])
def test_what_is_no_preference_is_refused_by_its_place(tmp_path, row, match):
  path = _file(tmp_path, row)
  with pytest.raises(errors.ConfigError, match=match) as caught:
    _read(path)
  assert str(caught.value).startswith(f'config.data.task: {path}:1')


def test_words_of_the_human_are_no_answer(tmp_path):
  good = dict(chosen=f'{TALK} Well.', rejected=f'{TALK} Bad.')
  path = _file(
      tmp_path, good, dict(good, chosen=f'{TALK} Well.\n\nHuman: Thanks!'),
      dict(good, rejected=f'{TALK}\n\nHuman: Hello?'),
      dict(good, rejected=f'{TALK} Bad.\n\nHuman:'))
  records, left_out = preferences.read_preferences(f'jsonl:{path}', 'train', {})
  assert [r['responses'] for r in records] == [['Well.', 'Bad.']]
  assert left_out == dict(human_last=3)


@pytest.mark.parametrize('responses, grades, kept', [
    (['a', 'a'], [1, 0], False), (['a', ' a\n'], [1, 0], False),
    (['a', 'b', 'a'], [1, 0, 2], False), (['', ' '], [1, 0], False),
    (['a', 'A'], [1, 0], True), (['a', 'a'], [1, 1.0], True),
    (['a', 'a', 'b'], [1, 1, 0], True)])
def test_one_response_with_two_grades_is_left_out_and_counted(
    tmp_path, responses, grades, kept):
  rows = [dict(prompt='?', responses=responses, grades=grades)]
  if len(responses) == 2 and grades == [1, 0]:
    rows.append(dict(zip(('chosen', 'rejected'), responses), prompt='?'))
    rows.append({
        name: f'\n\nHuman: ?\n\nAssistant: {text}'
        for name, text in zip(('chosen', 'rejected'), responses)})
  path = _file(tmp_path, dict(prompt='?', chosen='x', rejected='y'), *rows)
  records, left_out = preferences.read_preferences(f'jsonl:{path}', 'train', {})
  assert len(records) == 1 + kept * len(rows)
  assert left_out == ({} if kept else dict(identical=len(rows)))


def test_where_all_are_left_out_the_reasons_are_one_line(tmp_path):
  same = dict(prompt='?', chosen='a', rejected='a ')
  last = f'{TALK} Well.\n\nHuman: Thanks!'
  path = _file(tmp_path, same, same, dict(chosen=last, rejected=last))
  with pytest.raises(errors.ConfigError, match=(
      '^config.data.task: .*pairs.jsonl has no pairs; left out: 1 with an '
      'answer .*; 2 with equal responses')) as caught:
    _read(path)
  assert '\n' not in str(caught.value)


def test_refusals_name_the_field(tmp_path):
  path = _file(tmp_path, dict(prompt='a', chosen='b', rejected='c'))
  for task, split, options, match in (
      (f'jsonl:{path}', 'train[x:]', {}, 'data.split'),
      (f'jsonl:{path}', 'train[1:]', {}, 'has no pairs'),
      (f'jsonl:{path}.gone', 'train', {}, 'no such file'),
      (f'json:{path}', 'train', {}, 'did you mean jsonl'),
      (f'jsonl:{path}', 'train', dict(promt='q'), 'data.options')):
    with pytest.raises(errors.ConfigError, match=match):
      preferences.read_preferences(task, split, options)
  broken = tmp_path / 'broken.jsonl.gz'
  broken.write_bytes(b'no gzip')
  with pytest.raises(errors.ConfigError, match='broken.jsonl.gz'):
    _read(broken)


def test_every_pair_of_hh_is_read():
  path = shared_data.path('hh_rlhf/harmless_base_test.jsonl.gz')
  found, unlike = preferences.read_preferences(f'jsonl:{path}', 'train', {})
  assert len(found) == 2307 and unlike == dict(unlike=5)
  for record in found:
    assert record['prompt'][-1]['role'] == 'user'
    assert not any('\n\nHuman:' in text for text in record['responses'])


def test_a_summary_is_what_stands_behind_the_thinking():
  assert thinking.summary('<think> a </think> b </think> c ') == 'c'
  assert thinking.summary(' all ') == 'all'
  assert thinking.summary('<think> never ends') == ''


def _pair(better, worse, **more):
  return dict(prompt='', responses=['x' * better, 'x' * worse],
              grades=[1, 0]) | more


def test_balanced_the_better_one_is_the_longer_as_often_as_not():
  records = [_pair(9, 2), _pair(12, 5), _pair(2, 9), _pair(3, 3), _pair(99, 1)]
  # Of the two that are longer by 4 to 7 one has a counterpart; 98 has none.
  assert preferences.balance_lengths(records) == [0, 2, 3]
  rng = np.random.default_rng(0)
  many = [_pair(*rng.integers(1, 80, 2)) for _ in range(400)]
  chosen = [many[n]['responses'] for n in preferences.balance_lengths(many)]
  signs = [np.sign(len(better) - len(worse)) for better, worse in chosen]
  assert sum(signs) == 0 and len(chosen) > 300


@pytest.fixture(name='encode', scope='module')
def _encode():
  return templates.pair_encoder(
      'mini', vocabs.load_vocab('sentencepiece', 'mini'))


def test_encoded_is_the_text_as_it_is_sampled(encode):
  words = vocabs.load_vocab('sentencepiece', 'mini')
  asked, said = encode('Who are you?', 'I am Mini, a small language model.')
  assert said[-1] == words.eos_id
  assert asked + said[:-1] == words.encode(
      'User: Who are you?\nAssistant: I am Mini, a small language model.')
  # What is sampled, decoded and encoded again is what was sampled.
  assert encode('', words.decode(said))[1] == said
  with pytest.raises(errors.ConfigError, match="'chat'"):
    encode([dict(role='user', content='Hi')], 'Hello')


RECORDS = [
    dict(prompt=f'What is {n}+{n}?', grades=list(range(k)), task='t',
         responses=[f'{m} ' * (m + 1) for m in range(k)])
    for n, k in enumerate([2, 3, 1, 2, 4, 2, 3])]


def test_rows_hold_a_prompt_once_and_its_responses_behind_it(encode):
  rows = graded_rows.responses(RECORDS, encode, 128)
  batch = rows.take(np.arange(rows.size))
  assert batch.tokens.shape[1] == 128 and rows.counts['too_long'] == 0
  seen = []
  for b, s in np.argwhere(rows.record(np.arange(rows.size)) >= 0):
    number = rows.record(np.arange(rows.size))[b, s]
    record = RECORDS[number]
    seen.append(number)
    assert batch.real[b, s].sum() == len(record['responses'])
    for k, text in enumerate(record['responses']):
      asked, said = encode(record['prompt'], text)
      end = batch.end[b, s, k]
      mine = batch.segment[b] == batch.segment[b, end]
      prompt = batch.segment[b] == batch.parent[b, end]
      assert np.flatnonzero(mine)[-1] == end
      assert batch.tokens[b, prompt].tolist() == asked
      assert batch.tokens[b, mine].tolist() == said
      np.testing.assert_array_equal(
          batch.position[b, prompt | mine if k == 0 else mine],
          np.arange(0 if k == 0 else len(asked), len(asked + said)))
      assert (batch.parent[b, prompt] == batch.segment[b, prompt]).all()
      assert batch.grade[b, s, k] == record['grades'][k]
  assert sorted(seen) == list(range(len(RECORDS)))
  for b in range(rows.size):  # no two responses share a segment
    inside = batch.segment[b][batch.segment[b] > 0]
    assert len(set(inside)) == batch.real[b].sum() + batch.real[b].any(1).sum()
  assert (batch.segment == 0).sum() == rows.packed.counts['padding']
  assert (batch.parent[batch.segment == 0] == 0).all()


def test_what_fills_more_than_a_row_is_left_out_and_counted(encode):
  long = dict(RECORDS[0], responses=['1 ' * 99, '2'])
  rows = graded_rows.responses([*RECORDS, long], encode, 128)
  assert rows.counts == {'too_long': 1, 'identical': 0}
  assert len(rows.records) == len(RECORDS)
  with pytest.raises(errors.ConfigError, match='preference.length'):
    graded_rows.responses([long], encode, 128)
  with pytest.raises(errors.ConfigError, match='preference.batch'):
    rows.batch(0, 50, 0)


def test_what_a_model_cannot_tell_apart_is_left_out_and_counted(encode):
  plain = encode
  encode = lambda prompt, text: plain(prompt, ' '.join(text.split()))
  same = dict(RECORDS[0], responses=['1  2', '1 2'])
  equal = dict(same, grades=[1, 1])  # but nothing is compared
  rows = graded_rows.responses([*RECORDS, same, equal], encode, 128)
  assert rows.counts == {'too_long': 0, 'identical': 1}
  assert list(rows.records) == [*RECORDS, equal]
  with pytest.raises(errors.ConfigError,
                     match='^config.data.task: no prompts; left out: 2 with'):
    graded_rows.responses([same] * 2, encode, 128)
  long = dict(RECORDS[0], responses=['1 ' * 99, '2'])
  with pytest.raises(errors.ConfigError, match='^config.preference.length: '):
    graded_rows.responses([same, long], encode, 128)


def test_a_row_that_cannot_be_encoded_is_named(encode):
  record = dict(RECORDS[0], prompt=[dict(role='user', content='Hi')],
                place='a.jsonl:7')
  with pytest.raises(errors.ConfigError,
                     match="^config.data.template: a.jsonl:7: .*'chat'"):
    graded_rows.responses([record], encode, 128)
  rows = graded_rows.responses([dict(RECORDS[0], place='a.jsonl:7')], encode, 128)
  assert list(rows.records) == [RECORDS[0]]  # no path comes among a run's outputs
