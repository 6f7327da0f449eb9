"""A user's own data sources and templates, of files anywhere."""

import pytest

from r1jax import errors
from r1jax.data import preferences
from r1jax.data import sources
from r1jax.data import splits
from r1jax.data import templates
from r1jax.data import user_code

DATA = '''
import helper

def sums(split, count, largest=9):
  for a in range(1, largest + 1):
    yield dict(question=f'{split} {a}+1?', answer=a + helper.ONE, hard=a > 5)

def numbers(**options):
  n = 0
  while True:
    n += 1
    yield dict(prompt=f'Say {n}', response=str(n), task='say', verifier='exact')

def texts():
  return [f'text {n}' for n in range(100)]

def pairs(split):
  return [dict(prompt='Hi', chosen='Hello', rejected='No')]

def wrong(split):
  yield 3

def forgotten(split):
  [split]

def one(kind):
  return {'str': 'hello', 'dict': dict(text='one')}[kind]

def open_file(split):
  yield dict(prompt='Hi', answer='2', check=lambda: 0)

def ends(split):
  yield dict(prompt='Hi', answer='2')
  raise SystemExit(0)

def ends_at_once(split):
  raise SystemExit
'''


@pytest.fixture(name='place')
def _place(tmp_path):
  (tmp_path / 'helper.py').write_text('ONE = 1')
  (tmp_path / 'data.py').write_text(DATA)
  return lambda name: f'{tmp_path}/data.py:{name}'


def _refused(message):
  return pytest.raises(errors.ConfigError, match=message)


@pytest.mark.parametrize('text, holds', [
    ('my_data.py:f', True), ('/a/b.py:f', True), ('package.module:f', True),
    ('jsonl:/a.jsonl', False), ('mini_worked:long_en', False), ('a.py', False),
    ('reasoning_gym:chain_sum', False), ('package.module', False)])
def test_a_place_is_told_from_the_name_of_a_source(text, holds):
  assert user_code.is_place(text) is holds


def test_a_function_yields_prompts(place):
  kind, argument = sources.split_task(place('sums'), sources.PROMPTS)
  records = sources.PROMPTS[kind](argument, 'train', 0, 2, largest=7)
  assert records[1] == dict(
      prompt='train 2+1?', answer='3', task='sums', verifier='math',
      row=dict(question='train 2+1?', answer=3, hard=False))
  assert len(records) == 2
  assert len(sources.user_records(argument, 'heldout', 0, None)) == 9


def test_without_a_split_prompts_are_held_out_by_their_hash(place):
  train, held_out = (sources.user_records(place('numbers'), split, 0, 40)
                     for split in ('train', 'heldout'))
  assert len(train) == len(held_out) == 40
  assert all(splits.held_out(r['prompt']) for r in held_out)
  assert not any(splits.held_out(r['prompt']) for r in train)
  assert train[0]['task'] == 'say' and train[0]['verifier'] == 'exact'


def test_what_is_no_text_is_refused_where_a_hash_splits(tmp_path):
  (tmp_path / 'half.py').write_text(
      'def f():\n  return [dict(prompt=f"{n} \\ud800", answer=n) for n in '
      'range(100)]')
  for split in ('train', 'heldout'):
    with _refused(r'config.data.task: .*half.py:f\[\d+\]: .*surrogate'):
      sources.user_records(f'{tmp_path}/half.py:f', split, 0, None)


def test_documents_conversations_and_preferences(place):
  assert 60 < len(sources.user_texts(place('texts'), 'train', 0, None)) < 100
  pair, = sources.user_conversations(place('numbers'), 'train', 0, 1)
  assert [m['role'] for m in pair] == ['user', 'assistant']
  assert sources.answered(place('numbers'), 'train', 0, 1, {})[0][
      'response'] == pair[1]['content']
  records, left_out = preferences.read_preferences(place('pairs'), 'train', {})
  assert not left_out and list(records) == [
      dict(prompt='Hi', responses=['Hello', 'No'], grades=[1., 0.],
           task='pairs', place=f'{place("pairs")}[0]')]


def test_what_a_function_cannot_be_is_refused(place, tmp_path):
  read = lambda name, **options: sources.user_records(
      place(name), 'train', 0, 1, **options)
  with _refused("data.task: .* has no function 'sum'; did you mean sums"):
    read('sum')
  with _refused('config.data.options: .* did you mean largest'):
    read('sums', larges=3)
  with _refused('config.data.task: .*expected dicts, received 3'):
    read('wrong')
  with _refused('config.data.task: .*expected dicts, received None'):
    read('forgotten')
  with _refused(r"config.data.task: .*:texts\[\d\] has no field 'prompt'"):
    read('texts')
  with _refused('config.data.task: no such file: .*did you mean .*data.py'):
    sources.user_records(f'{tmp_path}/dat.py:f', 'train', 0, 1)
  with _refused("config.data.task: no module named 'no.such'"):
    sources.user_records('no.such:f', 'train', 0, 1)


def test_a_function_that_ends_the_program_is_an_error(place, tmp_path):
  for name in ('ends', 'ends_at_once'):
    with _refused(f'config.data.task: .*:{name} ends the program, by SystemE'):
      sources.user_records(place(name), 'train', 0, None)
  (tmp_path / 'ends.py').write_text('import sys\nsys.exit(0)')
  with _refused(r'config.a.b: .*ends.py:f ends the .* by SystemExit\(0\)'):
    user_code.load(f'{tmp_path}/ends.py:f', 'a.b')


def test_a_function_may_be_what_another_source_reads(place):
  assert sources.split_task(f'drafts:{place("numbers")}', sources.PROMPTS) == (
      'drafts', place('numbers'))
  record, = sources.PROMPTS['drafts'](place('numbers'), 'train', 0, 1)
  assert record['shown'].startswith('Say ') and '\n' in record['shown']


def test_a_bare_path_is_told_its_source(tmp_path):
  with _refused(f"config.data.task: expected .*'jsonl:{tmp_path}/a.jsonl'"):
    sources.split_task(f'{tmp_path}/a.jsonl', sources.PROMPTS)


RECORD = dict(prompt='1+1?', answer='2', row=dict(level=3))


@pytest.mark.parametrize('name, text, filled', [
    ('a.txt', 'Q: {prompt}\\boxed{}\nA:\n', 'Q: 1+1?\\boxed{}\nA:'),
    ('a.txt', 'Q{{ level }}: {{ prompt }}\nA:', 'Q3: 1+1?\nA:'),
    ('a.jinja', 'Q: {{ prompt }}{% if level > 2 %} (hard){% endif %}\nA:\n',
     'Q: 1+1? (hard)\nA:'),
])
def test_a_template_of_ones_own(tmp_path, name, text, filled):
  (tmp_path / name).write_text(text)
  fill = templates.load_template(str(tmp_path / name))
  assert fill('1+1?', RECORD) == filled
  if name == 'a.txt':
    assert templates.load_template(text.removesuffix('\n'))(
        '1+1?', RECORD) == filled


def test_a_template_that_cannot_be_is_refused(tmp_path):
  with _refused('config.data.template: no such file'):
    templates.load_template(str(tmp_path / 'absent.txt'))
  with _refused(f'config.data.template: {tmp_path} is a folder'):
    templates.load_template(str(tmp_path))
  (tmp_path / 'b.txt').write_bytes(b'Caf\xe9 {prompt}')
  with _refused('config.data.template: .*b.txt: .*byte 0xe9 in position 3'):
    templates.load_template(str(tmp_path / 'b.txt'))
  (tmp_path / 'a.txt').write_text('Answer this.')
  with _refused("config.data.template: expected a text with '{prompt}'"):
    templates.load_template(str(tmp_path / 'a.txt'))
  with _refused("config.data.template: .*'level' is undefined"):
    templates.load_template('{{ level }} {{ prompt }}')('1+1?')
  with _refused('config.data.template: '):
    templates.load_template('{{ prompt')('1+1?')
  with _refused('config.data.template: '):  # the sandbox
    templates.load_template(
        '{{ prompt.__class__.__mro__[1].__subclasses__() }}')('1+1?')


def test_one_row_is_no_list_of_them(place):
  for kind in ('str', 'dict'):
    with _refused('one: expected dicts, received'):
      sources.user_texts(place('one'), 'train', 0, None, kind=kind)


def test_what_cannot_be_pickled_is_refused_with_its_place(place):
  with _refused(r'open_file\[0\]: a field cannot be pickled'):
    sources.user_records(place('open_file'), 'train', 0, None)
