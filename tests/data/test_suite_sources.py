"""Tests of the sources of benchmarks, and of CSV."""

import collections
import gzip
import json
import random

import pytest

from r1jax import errors
from r1jax.data import json_lines
from r1jax.data import sources
from r1jax.data import suites
from r1jax.rewards import accuracy
from r1jax.stages import inputs

BOM = '\ufeff'


def _file(tmp_path, text, name='data.csv'):
  path = tmp_path / name
  content = text.encode()
  path.write_bytes(gzip.compress(content) if name.endswith('.gz') else content)
  return str(path)


def _rows(path):
  return [(place.removeprefix(path), row)
          for place, row in json_lines.read_rows(path, 'train')]


@pytest.mark.parametrize('name', ['data.csv', 'data.csv.gz'])
@pytest.mark.parametrize('begin, end', [
    ('', '\n'), (BOM, '\n'), ('', '\r\n'), (BOM, '\r\n')])
def test_csv_as_it_is_published(tmp_path, name, begin, end):
  text = end.join(['Q,A', '"x, ""y""",1', '', f'"two{end}lines",',
                   '\u00e9 , 2 ']) + end
  assert _rows(_file(tmp_path, begin + text, name)) == [
      (':2', {'Q': 'x, "y"', 'A': '1'}),
      (':4', {'Q': f'two{end}lines', 'A': ''}),
      (':6', {'Q': '\u00e9 ', 'A': ' 2 '})]


@pytest.mark.parametrize('text, said', [
    ('Q,A\n1,2\n3\n', r':3: not a row of CSV: expected 2 fields .Q, A., '
     'received 1'),
    ('Q,A\n1,2,3\n', ':2: not a row of CSV: expected 2 fields'),
    ('Q,A\n1,2\n"open,2\n', ':3: not a row of CSV: unexpected end of data'),
    ('Q,A\n1,"2"3\n', ":2: not a row of CSV: ',' expected"),
    ('Q,Q\n1,2\n', 'two columns have one name'),
])
def test_csv_that_cannot_be_read_is_refused_in_one_line(tmp_path, text, said):
  with pytest.raises(errors.ConfigError, match=said) as caught:
    _rows(_file(tmp_path, text))
  assert '\n' not in str(caught.value)
  assert caught.value.field == 'data.task'


def test_any_source_reads_csv(tmp_path):
  path = _file(tmp_path, 'question,answer\n1+1?,2\n2+2?,4\n')
  records = list(sources.jsonl(path, 'train[1:]', 0, None))
  assert [(r['prompt'], r['answer']) for r in records] == [('2+2?', '4')]


GPQA = ('Pre-Revision Question,Question,Correct Answer,Incorrect Answer 1,'
        'Incorrect Answer 2,Incorrect Answer 3,Record ID\n')


def _gpqa(tmp_path, count, name='gpqa_diamond.csv'):
  rows = (f'old,"How many, {n}?",right {n},wrong,worse,"no, never",rec{n}\n'
          for n in range(count))
  return _file(tmp_path, GPQA + ''.join(rows), name)


def test_gpqa_is_asked_in_the_words_of_simple_evals(tmp_path):
  record, = suites.gpqa(_gpqa(tmp_path, 1), 'train', 0, None)
  letters = dict(zip(record['options'], 'ABCD'))
  assert record['prompt'] == (
      'Answer the following multiple choice question. The last line of your '
      "response should be of the following format: 'Answer: $LETTER' (without "
      'quotes) where LETTER is one of ABCD. Think step by step before '
      'answering.\n\nHow many, 0?\n\n' + '\n'.join(
          f'{letter}) {option}'
          for letter, option in zip('ABCD', record['options'])))
  assert record['answer'] == letters['right 0']
  assert (record['task'], record['verifier']) == ('gpqa', 'choice')
  assert record['row']['Record ID'] == 'rec0'


def test_the_order_of_options_is_uniform_and_a_function_of_seed_and_question(
    tmp_path):
  path = _gpqa(tmp_path, 800)
  records = suites.gpqa(path, 'train', 0, None)
  orders = collections.Counter(record['answer'] for record in records)
  assert sorted(orders) == list('ABCD')
  assert all(150 < count < 250 for count in orders.values())  # 200 +- 4 sigma
  places = collections.Counter(r['options'].index('worse') for r in records)
  assert all(150 < count < 250 for count in places.values())
  assert suites.gpqa(path, 'train[700:]', 0, None) == records[700:]
  again = suites.gpqa(path, 'train', 1, None)
  assert 500 < sum(a['options'] != b['options']
                   for a, b in zip(records, again)) < 800


def test_gpqa_without_a_column(tmp_path):
  path = _file(tmp_path, GPQA.replace('Correct Answer,', '', 1) + '')
  assert suites.gpqa(path, 'train', 0, None) == []
  path = _file(tmp_path, 'Question,Answer\n1+1?,2\n')
  with pytest.raises(errors.ConfigError,
                     match="data.csv:2 has no field 'Correct Answer'"):
    suites.gpqa(path, 'train', 0, None)
  path = _file(tmp_path, GPQA + 'x,Q?,,b,c,d,e\n')
  with pytest.raises(errors.ConfigError, match="in 'Correct Answer'"):
    suites.gpqa(path, 'train', 0, None)


_HUB = dict(question='1+1?', choices=['1', '2', '3'], answer=1, subject='maths')
_PRO = dict(question='1+1?', options=list('0123456789'), answer='C',
            answer_index=2, category='maths')


def test_mmlu_in_its_three_forms(tmp_path):
  csv = _file(tmp_path, '"1+1, is?",1,2,3,4,B\nA?,"a, b",c,d,e,D\n',
              'algebra_test.csv')
  first, second = suites.mmlu(csv, 'train', 0, None)
  assert first['prompt'].endswith('1+1, is?\n\nA) 1\nB) 2\nC) 3\nD) 4')
  assert (first['answer'], second['answer']) == ('B', 'D')
  assert second['options'] == ('a, b', 'c', 'd', 'e')
  headed = _file(tmp_path, ',Question,A,B,C,D,Answer,Subject\n'
                 '0,1+1?,1,2,3,4,B,maths\n', 'mmlu.csv')
  assert suites.mmlu(headed, 'train', 0, None, header=True)[0]['answer'] == 'B'
  hub = _file(tmp_path, json.dumps(_HUB), 'hub.jsonl')
  record, = suites.mmlu(hub, 'train', 0, None)
  assert record['answer'] == 'B' and record['options'] == ('1', '2', '3')
  assert 'one of ABC.' in record['prompt']
  pro = _file(tmp_path, json.dumps(_PRO), 'pro.jsonl')
  record, = suites.mmlu(pro, 'train', 0, None, task='mmlu_pro')
  assert record['task'] == 'mmlu_pro'
  assert record['answer'] == 'C' and record['prompt'].endswith('J) 9')


def test_options_of_mmlu_keep_their_order_unless_they_are_shuffled(tmp_path):
  path = _file(tmp_path, ''.join(f'Q{n}?,1,2,3,4,B\n' for n in range(40)))
  plain = suites.mmlu(path, 'train', 0, None)
  assert {record['answer'] for record in plain} == {'B'}
  shuffled = suites.mmlu(path, 'train', 0, None, shuffle=True)
  assert {record['answer'] for record in shuffled} == set('ABCD')
  assert all(r['options']['ABCD'.index(r['answer'])] == '2' for r in shuffled)


@pytest.mark.parametrize('row, said', [
    (_HUB | dict(answer=3), 'a letter of ABC, or 0 to 2'),
    (_HUB | dict(answer=-1), 'or 0 to 2'), (_HUB | dict(answer=True), '0 to 2'),
    (_HUB | dict(answer='D'), 'a letter of ABC'),
    (_HUB | dict(answer='1'), 'a letter'), (_HUB | dict(answer=''), 'a letter'),
    (_HUB | dict(choices=['1']), '2 to 10 options'),
    (_HUB | dict(choices=list('abcdefghijk')), '2 to 10 options'),
    (_HUB | dict(choices=[1, 2]), 'a text in .choices'),
    (_HUB | dict(question=' '), 'not empty'),
    (dict(question='Q', answer=1), "'choices' or 'options'"),
    (dict(choices=['1', '2'], answer=1), "'question' or 'Question'")])
def test_mmlu_that_is_refused(tmp_path, row, said):
  path = _file(tmp_path, json.dumps(row), 'hub.jsonl')
  with pytest.raises(errors.ConfigError, match=said) as caught:
    suites.mmlu(path, 'train', 0, None)
  assert 'hub.jsonl:1' in str(caught.value)


def test_mmlu_with_a_header_that_is_not_announced(tmp_path):
  path = _file(tmp_path, 'question,A,B,C,D,answer\nQ?,1,2,3,4,B\n')
  with pytest.raises(errors.ConfigError, match="data.csv:1.*'answer'"):
    suites.mmlu(path, 'train', 0, None)
  with pytest.raises(errors.ConfigError, match='data.options.header'):
    suites.mmlu(path, 'train', 0, None, header='no')


_IFEVAL = dict(
    key=1000, prompt='Write 300 words without commas.',
    instruction_id_list=['punctuation:no_comma',
                         'length_constraints:number_words'],
    kwargs=[{}, {'relation': 'at least', 'num_words': 3}])


def test_ifeval_as_it_is_published_and_as_on_the_hub(tmp_path):
  every = dict(relation=None, num_words=None, language=None)
  hub = _IFEVAL | dict(kwargs=[every, every | _IFEVAL['kwargs'][1]])
  for row in (_IFEVAL, hub):
    path = _file(tmp_path, json.dumps(row), 'input_data.jsonl')
    record, = suites.ifeval(path, 'train', 0, None)
    assert record['prompt'] == _IFEVAL['prompt'] and record['answer'] == ''
    assert record['instructions'] == [
        ('punctuation:no_comma', {}), ('length_constraints:number_words', {
            'relation': 'at least', 'num_words': 3})]
    checked = accuracy.check_answers(
        [record] * 3, ['one two three', 'one, two three', 'one'], pool=_NoPool())
    assert checked.right.tolist() == [1, 0, 0]


class _NoPool:

  def run(self, jobs):
    assert not jobs
    return []


@pytest.mark.parametrize('changed, said', [
    (dict(kwargs=[{}]), 'an object for each of 2 instructions'),
    (dict(kwargs=[{}, None]), 'a list of objects'),
    (dict(kwargs=[{}, {}]), 'of length_constraints:number_words'),
    (dict(instruction_id_list=['punctuation:comma', 'startend:quotation']),
     'did you mean punctuation:no_comma'),
    (dict(instruction_id_list=[]), 'texts'),
    (dict(prompt=''), 'not empty')])
def test_ifeval_that_is_refused_names_its_row(tmp_path, changed, said):
  rows = [json.dumps(_IFEVAL), json.dumps(_IFEVAL | changed)]
  path = _file(tmp_path, '\n'.join(rows), 'input_data.jsonl')
  with pytest.raises(errors.ConfigError, match=said) as caught:
    suites.ifeval(path, 'train', 0, None)
  assert 'input_data.jsonl:2' in str(caught.value)


@pytest.mark.parametrize('name', suites.PROMPTS)
def test_damaged_rows_are_refused_in_one_line(tmp_path, name):
  rng = random.Random(name)
  good = {'gpqa': dict(zip(GPQA.strip().split(','), 'abcdefg')),
          'mmlu': _HUB, 'ifeval': _IFEVAL}[name]
  values = [None, True, 7, 0.5, '', ' ', 'text', [], [None], ['a', 'b'], {},
            [{}], [[1]], {'a': 1}]
  outcomes = collections.Counter()
  for _ in range(200):
    field, value = rng.choice([*good]), rng.choice(values)
    rows = [json.dumps(good), json.dumps(good | {field: value})]
    path = _file(tmp_path, '\n'.join(rows), 'rows.jsonl')
    try:
      found = suites.PROMPTS[name](path, 'train', 0, None)
    except errors.ConfigError as problem:
      assert 'rows.jsonl:2' in str(problem) and '\n' not in str(problem)
      outcomes['refused'] += 1
    else:
      assert [r['prompt'].strip() != '' for r in found] == [True, True]
      outcomes['read'] += 1
  assert min(outcomes.values()) > 10, outcomes


def test_files_of_suites_are_inputs_of_a_run(tmp_path):
  path = _gpqa(tmp_path, 2)
  config = dict(tests=dict(gpqa=dict(data=dict(
      task=f'gpqa:{path}', split='train'))))
  assert inputs.patterns(config) == [path]
  before = inputs.digests(config)
  assert list(before) == [path] and list(before[path]) == [path]
  _gpqa(tmp_path, 3)
  assert inputs.digests(config) != before
  assert inputs.patterns(dict(task='drafts:jsonl:a.jsonl')) == ['a.jsonl']
  assert inputs.patterns(dict(task='reasoning_gym:chain_sum')) == []
