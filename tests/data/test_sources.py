"""Tests of the sources: files, reasoning_gym, the mini world."""

import json
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from r1jax import errors
from r1jax.data import gym
from r1jax.data import sources
from r1jax.data import splits
from r1jax.mini import general
from r1jax.mini import sources as mini_sources
import shared_data

_SUITE = {'aime': 30, 'amc': 83, 'math': 500, 'minerva': 272,
          'olympiad_bench': 675}


def _jsonl(path, **options):
  split = options.pop('split', 'train')
  return list(sources.jsonl(str(path), split, 0, None, **options))


def _write(path, *rows):
  path.write_text('\n'.join(map(json.dumps, rows)))
  return path


@pytest.mark.parametrize('answer, expected', [
    ('She sold 48/2 = <<48/2=24>>24.\n#### 72', '72'),
    ('so it is\n#### 10,000', '10000'),
    ('#### -5 ', '-5'),
    ('#### 1,072', '1072'), ('#### -1,072,000', '-1072000'),
    ('#### $1,072.50 a day', '$1072.50 a day'),
    ('#### (2, 3)', '(2, 3)'), ('#### 1,3,5', '1,3,5'),
    ('#### 1,3,500', '1,3,500'), ('#### (1,072, 2)', '(1,072, 2)'),
    ('#### [1,072]', '[1,072]'), ('#### 0,25', '0,25'), ('####', ''),
    ('#### \\langle 100,200\\rangle', '\\langle 100,200\\rangle'),
    ('#### ]100,200[', ']100,200['), ('#### |100,200|', '|100,200|'),
    ('#### 0,125', '0,125'), ('#### .1,072', '.1,072'),
    ('#### x = 1,072', 'x = 1072'),
    ('1,072', '1,072'),
    (142.0, '142'), (2.5, '2.5'), (7, '7'), (1e22, '1' + '0' * 22),
    ('9.6\n', '9.6'),
    ('\\frac{\\pi}{2}', '\\frac{\\pi}{2}'),
])
def test_reference_answers_are_reduced(answer, expected):
  assert sources.reduced(answer) == expected


def test_several_right_answers():
  found = sources.record('Q', ['0.01\n', '0.02\n'], 'minerva', 'math')
  assert (found['answer'], found['alternatives']) == ('0.01', ['0.02'])
  assert 'alternatives' not in sources.record('Q', ['2'], 'minerva', 'math')


def test_jsonl_finds_its_fields(tmp_path):
  path = _write(tmp_path / 'sums.jsonl', {'question': '1+1?', 'answer': 2},
                {'problem': '1+2?', 'answer': '#### 3'})
  assert _jsonl(path) == [
      dict(prompt='1+1?', answer='2', task='sums', verifier='math',
           row={'question': '1+1?', 'answer': 2}),
      dict(prompt='1+2?', answer='3', task='sums', verifier='math',
           row={'problem': '1+2?', 'answer': '#### 3'})]
  path = _write(tmp_path / 'own.jsonl', {'q': '1+1?', 'a': 'two'})
  assert _jsonl(path, prompt='q', answer='a', task='t', verifier='exact') == [
      dict(prompt='1+1?', answer='two', task='t', verifier='exact',
           row={'q': '1+1?', 'a': 'two'})]
  assert [*sources.jsonl_texts(str(path), 'train', 0, None, text='a')] == ['two']


def test_jsonl_conversations(tmp_path):
  said = [{'role': 'user', 'content': 'Hi'},
          {'role': 'assistant', 'content': 'Hello'}]
  path = _write(tmp_path / 'c.jsonl', {'messages': said},
                {'question': '1+1?', 'answer': 'It is 2.\n#### 2'})
  assert list(sources.jsonl_conversations(str(path), 'train', 0, None)) == [
      said, [{'role': 'user', 'content': '1+1?'},
             {'role': 'assistant', 'content': 'It is 2.\n#### 2'}]]
  with pytest.raises(errors.ConfigError, match='options.answer.*:2 has no'):
    list(sources.jsonl_conversations(
        str(path), 'train', 0, None, answer='a'))


def test_jsonl_splits(tmp_path):
  for split in ('train', 'test'):
    _write(tmp_path / f'{split}.jsonl', {'question': split, 'answer': 1})
  found = _jsonl(tmp_path / '{split}.jsonl', split='test')
  assert [r['prompt'] for r in found] == ['test']
  assert found[0]['task'] == tmp_path.name
  with pytest.raises(errors.ConfigError,
                     match="config.data.split.*eval.split.*'heldout'"):
    _jsonl(tmp_path / 'test.jsonl', split='heldout')


def test_jsonl_refusals(tmp_path):
  def refused(message):
    return pytest.raises(errors.ConfigError, match=message)
  with refused('config.data.task: no such file'):
    _jsonl(tmp_path / 'absent.jsonl')
  path = _write(
      tmp_path / 'a.jsonl', {'question': '1+1?', 'answer': 2}, {'q': 1})
  with refused('config.data.options.prompt: .*a.jsonl:2 has no'):
    _jsonl(path)
  with refused('config.data.options.answer: .*a.jsonl:1 has no'):
    _jsonl(path, answer='solution')
  with refused('config.data.options.verifier: .* did you mean math'):
    _jsonl(path, verifier='maths')
  for row in ('{"question": ', '[1, 2]'):
    path.write_text('{"question": "1+1?", "answer": 2}\n' + row)
    with refused('config.data.task: .*a.jsonl:2: not a JSON object'):
      _jsonl(path)


def test_gsm8k():
  path = str(shared_data.path('gsm8k/train.jsonl')).replace('train', '{split}')
  train, test = _jsonl(path), _jsonl(path, split='test')
  assert (len(train), len(test)) == (7473, 1319)
  assert [r['answer'] for r in train[:3]] == ['72', '10', '5']
  assert {r['task'] for r in train} == {'gsm8k'}
  assert all(r['answer'].lstrip('-').isdigit() for r in train + test)
  # A published "train" file held 8,792 problems: both splits.
  assert not {r['prompt'] for r in train} & {r['prompt'] for r in test}


@pytest.mark.parametrize('name', _SUITE)
def test_evaluation_suite(name):
  found = _jsonl(shared_data.path(f'evaluation_suite/{name}.jsonl'))
  assert len(found) == _SUITE[name]
  for record in found:
    assert record['task'] == name and record['prompt']
    for answer in [record['answer'], *record.get('alternatives', ())]:
      assert isinstance(answer, str)
      assert answer and answer == answer.strip()
      assert name != 'amc' or answer.lstrip('-').isdigit()  # from 142.0


def test_a_task_or_each_of_a_mixture_has_its_options():
  options = {'size': 3}
  assert sources.parts('a', options) == [('a', 1., options)]
  config = ml_collections.ConfigDict(dict(
      task=[('jsonl:/a/b.jsonl', 3.), ('c', 1)], options={'0': options}))
  assert sources.parts(config.task, config.options.to_dict()) == [
      ('jsonl:/a/b.jsonl', 3., options), ('c', 1., {})]


@pytest.mark.parametrize('task, options, message', [
    (None, {}, 'config.data.task: expected the name of a task or a list of'),
    ([], {}, 'config.data.task: expected'),
    (['a', 'b'], {}, 'config.data.task: expected'),
    ([('a', 'often')], {}, 'config.data.task: expected'),
    ([('a', 1.)], {'a': {}}, 'config.data.options: expected one of 0; '),
])
def test_a_mixture_that_is_none_is_refused(task, options, message):
  with pytest.raises(errors.ConfigError, match=message):
    sources.parts(task, options)


@pytest.mark.parametrize('split, count, options, message', [
    ('tset', 1, {}, 'config.data.split .or config.eval.split.: .*heldout'),
    ('train', 1, dict(tasks='chain'), "options.tasks: .* mean chain_sum"),
    ('train', 1, dict(size='all'), 'config.data.options.size: expected'),
    ('train', 9000, dict(tasks='complex_arithmetic'),
     'config.data.num_prompts .or config.eval.problems.: count 9000 is more'),
])
def test_mini_world_refusals(split, count, options, message):
  with pytest.raises(errors.ConfigError, match=message):
    mini_sources.mini_reasoning('', split, 0, count, **options)


def test_gym_splits_never_meet():
  settings = dict(min_terms=2, max_terms=2, min_digits=1, max_digits=1)
  train = gym.generate('chain_sum', 'train', 3, 40, settings)
  again = gym.generate('chain_sum', 'train', 4, 40, settings)
  heldout = gym.generate('chain_sum', 'heldout', 3, 10, settings)
  prompts = [{e['question'] for e in part} for part in (train, again, heldout)]
  assert [len(p) for p in prompts] == [40, 40, 10]
  assert prompts[0] != prompts[1]
  assert not (prompts[0] | prompts[1]) & prompts[2]
  assert all(splits.held_out(p) for p in prompts[2])


@pytest.mark.parametrize('name', ['word_ladder', 'isomorphic_strings'])
def test_gym_does_not_depend_on_the_hash_seed(monkeypatch, name):
  made = []
  for seed in '12':
    monkeypatch.setenv('PYTHONHASHSEED', seed)
    made.append(gym.generate(name, 'train', 0, 4, {}))
  assert made[0] == made[1]


def test_gym_records():
  found, = sources.reasoning_gym('rubiks_cube', 'train', 0, 1)
  assert found['answer'] == ''  # its scorer needs none
  assert found['verifier'] == 'reasoning_gym' and found['task'] == 'rubiks_cube'
  assert found['prompt'] == found['entry']['question']


@pytest.mark.parametrize('name, split, size, config, message', [
    ('chainsum', 'train', 1, {}, 'config.data.task.*did you mean chain_sum'),
    ('chain_sum', 'test', 1, {}, 'config.data.split'),
    ('chain_sum', 'train', 1, dict(terms=2), 'config.data.options: .*terms'),
    ('chain_sum', 'train', 1, dict(min_terms=0), 'config.data.options: '),
    ('chain_sum', 'heldout', 500,
     dict(min_terms=2, max_terms=2, min_digits=1, max_digits=1),
     'options.size: .*distinct .*heldout'),
])
def test_gym_refusals(name, split, size, config, message):
  with pytest.raises(errors.ConfigError, match=message):
    gym.generate(name, split, 0, size, config)


def test_a_source_that_generates_needs_a_number():
  with pytest.raises(errors.ConfigError, match='config.data.options.size'):
    sources.reasoning_gym('chain_sum', 'train', 0, None)


def test_all_but_the_tasks_work_without_tensorflow_and_jax():
  code = ('import sys; from r1jax.data import batches, gym, sources, '
          'templates, vocabs; sys.exit(bool({"tensorflow", "seqio", "jax"} & '
          'set(sys.modules)))')
  assert subprocess.run([sys.executable, '-c', code], check=False,
                        cwd=pathlib.Path(__file__).parents[2]).returncode == 0


def test_drafts_are_shown_behind_their_prompt(tmp_path):
  path = tmp_path / 'kept-00000.jsonl'
  path.write_text(
      '{"prompt": "1+1?", "response": "<answer>2</answer>", "answer": "2", '
      '"task": "sum", "source": {"id": 3}}\n{"prompt": "?", "response": "!"}\n')
  found = sources.drafts(f'jsonl:{tmp_path}/kept-*.jsonl', 'train', 0, None)
  assert found[0] == dict(
      prompt='1+1?', shown='1+1?\n<answer>2</answer>', verifier='same',
      response='<answer>2</answer>', answer='<answer>2</answer>', task='sum',
      source=dict(id=3))
  assert 'source' not in found[1] and found[1]['task'] == 'kept-*'
  made = sources.drafts('mini_general', 'train', 0, 4, tasks='translation')
  assert len(made) == 4 and all(r['task'] == 'mini_general' for r in made)
  for name, options, message in (
      ('mini_corpus', {}, 'one of .*mini_writing'),
      ('mini_general', dict(task='x'), 'config.data.options'),
      ('mini_general', dict(tasks='x'), 'config.data.options.tasks'),
      ('mini_general', dict(tasks=()), 'tasks: expected at least one task')):
    with pytest.raises(errors.ConfigError, match=message):
      sources.drafts(name, 'train', 0, 4, **options)


def test_answers_of_a_file(tmp_path):
  path = _write(tmp_path / 'c.jsonl', dict(q='1+1?', a='2', task='sum'),
                dict(q='1+2?', a='3', source='olympiads'))
  assert sources.answered(f'jsonl:{path}', 'train', 0, None, dict(
      prompt='q', answer='a')) == [
          dict(prompt='1+1?', response='2', task='sum'),
          dict(prompt='1+2?', response='3', task='c', source='olympiads')]


@pytest.mark.parametrize('row, message', [
    (dict(prompt='?', response=None), "a text in 'response', received None"),
    (dict(prompt='?', response=''), "a text that is not empty in 'response'"),
    (dict(prompt=['?'], response='!'), "messages, .* in 'prompt', received"),
    (dict(prompt='?', answer=3), "a text in 'answer', received 3"),
    (dict(prompt='?', response='!', task=1), "a text in 'task', received 1"),
])
def test_answers_that_are_no_texts_are_refused(tmp_path, row, message):
  path = _write(tmp_path / 'c.jsonl', dict(prompt='?', response='!'), row)
  for read in (sources.answered, lambda *args: sources.drafts(*args[:-1])):
    with pytest.raises(errors.ConfigError, match=f':2: expected {message}'):
      read(f'jsonl:{path}', 'train', 0, None, {})


def test_options_that_a_file_has_not_are_refused(tmp_path):
  path = _write(tmp_path / 'c.jsonl', dict(prompt='?', response='!'))
  with pytest.raises(errors.ConfigError,
                     match="config.data.options: .* mean answer"):
    sources.answered(f'jsonl:{path}', 'train', 0, None, dict(answers='x'))


def test_general_tasks_are_prompts_and_answers():
  read = sources.PROMPTS['mini_general']
  rows = read('', 'heldout', 0, 30, verifier='judge')
  assert {row['verifier'] for row in rows} == {'judge'}
  assert {row['task'] for row in rows} == set(general.CHECKABLE)
  with pytest.raises(errors.ConfigError, match='options.verifier'):
    read('', 'heldout', 0, 30, verifier='math')
  pairs = sources.answered('mini_general', 'train', 0, 40, {})
  known = {pair for task in general.GENERAL
           for pair in general.prompt_answer_pairs(task)}
  assert all((row['prompt'], row['response']) in known for row in pairs)


def test_a_judge_may_stand_in_for_the_rule_of_a_problem():
  read = sources.PROMPTS['mini_reasoning']
  rows = read('', 'train', 0, 6, verifier='judge')
  assert rows == [row | dict(verifier='judge')
                  for row in read('', 'train', 0, 6)]
  with pytest.raises(errors.ConfigError, match='options.verifier'):
    read('', 'train', 0, 6, verifier='exact')


def test_lessons_of_a_kind_that_there_is_not():
  with pytest.raises(errors.ConfigError, match='KIND.* mean rewrite[?]'):
    sources.answered('mini_lessons:rewrites', 'train', 0, 4, {})


def test_an_optional_column_may_be_null(tmp_path):
  path = _write(tmp_path / 'c.jsonl', dict(
      prompt='?', response='!', task=None, source=None))
  assert sources.answered(f'jsonl:{path}', 'train', 0, None, {}) == [
      dict(prompt='?', response='!', task='c', source=None)]


def test_a_source_that_json_cannot_hold_is_refused(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet
  table = pyarrow.Table.from_pylist(
      [dict(prompt='?', response='!', source=b'a')])
  parquet.write_table(table, tmp_path / 'a.parquet')
  with pytest.raises(errors.ConfigError, match=(
      r"data.task: .*a.parquet\[0\]: .* in 'source', received b'a'")):
    sources.answered(f'jsonl:{tmp_path}/a.parquet', 'train', 0, None, {})


def test_decimals_have_the_tolerance_of_the_option_or_the_row(tmp_path):
  path = _write(tmp_path / 'decimals.jsonl', dict(prompt='Q', answer='0.5'),
                dict(prompt='Q', answer='0.5', tolerance=0.05))
  tolerances = lambda **options: [
      made.get('tolerance') for made in _jsonl(path, **options)]
  assert tolerances() == [None, 0.05]
  assert tolerances(tolerance=0.01) == [0.01, 0.05]
  for wrong in (-1, 1, 'much', True):
    with pytest.raises(errors.ConfigError, match='options.tolerance: expected'):
      tolerances(tolerance=wrong)
  path = _write(path, dict(prompt='Q', answer='0.5', tolerance='5%'))
  with pytest.raises(errors.ConfigError, match="jsonl:1: expected a finite"):
    _jsonl(path)


def test_the_usual_shapes_by_option(tmp_path):
  talk = [{'from': 'system', 'value': 'Be brief.'},
          {'from': 'human', 'value': 'Hi'}, {'from': 'gpt', 'value': 'Yo'}]
  path = _write(tmp_path / 'sharegpt.json', dict(id=1, conversations=talk))
  assert list(sources.jsonl_conversations(
      str(path), 'train', 0, None, messages='conversations')) == [[
          dict(role='system', content='Be brief.'),
          dict(role='user', content='Hi'),
          dict(role='assistant', content='Yo')]]

  path = tmp_path / 'alpaca.json'
  path.write_text(json.dumps([
      dict(instruction='Add.', input='1 2', output='3'),
      dict(instruction='Say Hi.', input='', output='Hi'),
      dict(instruction='Say Yo.', input=None, output='Yo')]))
  names = dict(prompt='instruction', input='input', answer='output')
  pairs = [('Add.\n1 2', '3'), ('Say Hi.', 'Hi'), ('Say Yo.', 'Yo')]
  assert list(sources.jsonl_conversations(str(path), 'train', 0, None, **names)) == [
      mini_sources.conversation(pair) for pair in pairs]
  assert [(r['prompt'], r['answer']) for r in _jsonl(path, **names)] == pairs
  assert [(r['prompt'], r['response']) for r in sources.answered(
      f'jsonl:{path}', 'train', 0, None, names)] == pairs

  path = _write(tmp_path / 'verl.jsonl', dict(
      data_source='math_dapo', prompt=[dict(role='user', content='1+1?')],
      reward_model=dict(style='rule', ground_truth='2'), extra_info=dict(a=1)))
  record, = _jsonl(path, answer='reward_model.ground_truth')
  assert (record['prompt'], record['answer']) == ('1+1?', '2')

  path = _write(tmp_path / 'math.jsonl', dict(
      problem='1/2?', solution=r'Not \boxed{1}, \boxed{\frac{1}{2}}.', level=1))
  record, = _jsonl(path, answer='solution', extract='boxed')
  assert record['answer'] == r'\frac{1}{2}'


@pytest.mark.parametrize('row, options, message', [
    (dict(prompt='?', reward_model='2'), dict(answer='reward_model.truth'),
     "options.answer: .*:1 has no field 'reward_model.truth'"),
    (dict(prompt='?', reward_model=dict(truth=None)),
     dict(answer='reward_model.truth'),
     "options.answer: .*:1: .* in 'reward_model.truth', received None"),
    (dict(prompt=[dict(role='system', content='a'),
                  dict(role='user', content='b')], answer='2'), {},
     'task: .*:1: .*config.data.system'),
    (dict(prompt='?', solution='It is 2.'),
     dict(answer='solution', extract='boxed'),
     r"options.answer: .*:1: expected a solution with .*boxed.* 'It is 2.'"),
    (dict(prompt='?', solution=2), dict(answer='solution', extract='boxed'),
     'options.answer: .*:1: expected a text'),
    (dict(prompt='?', answer='2'), dict(extract='box'), 'options.extract: '),
    (dict(prompt='?', answer='2'), dict(input='more'),
     "options.input: .*:1 has no field 'more'"),
    (dict(prompt='?', more=3, answer='2'), dict(input='more'),
     "options.input: .*:1: expected a text in 'more', received 3"),
    (dict(prompt='?', answer='2'), dict(answer=3),
     'options.answer: expected the name of a column, received 3'),
    (dict(prompt='?', answer='2'), dict(task=3), 'options.task: .* a name'),
    (dict(prompt='?', answer='####'), {}, ':1: expected an answer that is not'),
    (dict(prompt='?', answer=['2', ' ']), {}, ':1: expected an answer that is'),
])
def test_a_wrong_column_is_blamed_on_what_names_it(
    tmp_path, row, options, message):
  path = _write(tmp_path / 'a.jsonl', row)
  with pytest.raises(errors.ConfigError, match=f'^config.data.*{message}'):
    _jsonl(path, **options)


def test_a_judge_needs_no_reference(tmp_path):
  path = _write(tmp_path / 'a.jsonl', dict(prompt='Write a poem.', answer=''))
  assert _jsonl(path, verifier='judge')[0]['answer'] == ''
  path = _write(tmp_path / 'a.jsonl', dict(prompt='Write a poem.', answer=None))
  with pytest.raises(errors.ConfigError, match='received None'):
    _jsonl(path, verifier='judge')


def test_a_number_keeps_the_digits_of_its_file(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('\n'.join(
      f'{{"prompt": "?", "answer": {digits}}}' for digits in (
          '142.0', '0.1', '3.14159265358979323846', '1e23',
          '9007199254740993')))
  found = _jsonl(path)
  assert [record['answer'] for record in found] == [
      '142', '0.1', '3.14159265358979323846', '1' + '0' * 23,
      '9007199254740993']
  assert found[1]['row']['answer'] == 0.1


def test_a_prompt_of_messages_is_what_comes_before_the_answer(tmp_path):
  before = [dict(role='system', content='a'), dict(role='user', content='b')]
  path = _write(tmp_path / 'a.jsonl', dict(prompt=before, response='c'))
  assert list(sources.jsonl_conversations(str(path), 'train', 0, None)) == [
      [*before, dict(role='assistant', content='c')]]


def test_examples_are_blamed_on_their_field(tmp_path):
  talk = [dict(role='user', content='Hi'), dict(role='assistant', content='Yo')]
  path = _write(tmp_path / 'a.jsonl', dict(prompt='?', answer='!'),
                dict(messages=talk * 2), dict(prompt='?', answer=None))
  with pytest.raises(errors.ConfigError, match='^config.data.examples: .*:3: '):
    sources.examples(f'jsonl:{path}', 1, 0)
  path = _write(tmp_path / 'b.jsonl', dict(prompt='?', answer='!'),
                dict(messages=talk * 2))
  assert sources.examples(f'jsonl:{path}', 1, 0) == [('?', '!')]
  with pytest.raises(errors.ConfigError,
                     match='^config.data.examples: .*:2: .* two texts'):
    sources.examples(f'jsonl:{path}', 2, 0)
  with pytest.raises(errors.ConfigError, match=(
      '^config.data.examples: expected a source of conversations')):
    sources.examples(None, 2, 0)
