"""500 damaged rows of every source: each is read right, or refused in one line.

A column of one row gets a value at random, of JSON or of Python; or the line is
cut, doubled or spoilt. READ says which values a type of column takes, and what
is read of them; all others are refused, with the place of the row.
"""

import collections
import decimal
import gzip
import json
import random
import sys

import numpy as np
import pytest

from r1jax import errors
from r1jax.data import columns
from r1jax.data import preferences
from r1jax.data import sources

CASES = 500
WHERE = 2  # the damaged row, of four

USER, SAID = ({'role': role, 'content': role} for role in ('user', 'assistant'))
TALK = '\n\nHuman: Hi\n\nAssistant: '

# Values as JSON; DAMAGED, of which no row can be read, whichever column it is.
VALUES = {
    'null': 'null', 'true': 'true', 'false': 'false', 'integer': '7',
    'float': '2.50', 'nan': 'NaN', 'infinity': '-Infinity', 'huge': '1e999',
    'empty': '""', 'blank': '" \\n\\t"', 'text': '"\\u00e9 \u6211\\u0000"',
    'nothing': '[]', 'nulls': '[null]', 'texts': '["a", "b"]',
    'numbers': '[1, 0.5]', 'bools': '[true, false]', 'nans': '[1, NaN]',
    'nested': '[[["a"]]]', 'object': '{}', 'field': '{"a": 1}',
    'long': json.dumps('x' * 100_000), 'big': '9' * 400,
    'user': json.dumps([USER]), 'talk': json.dumps([USER, SAID]),
    'silent': '[{"role": "user"}, {"role": "assistant", "content": null}]',
    'sharegpt': '[{"from": "human", "value": "user"}, '
                '{"from": "gpt", "value": "assistant"}]',
    'hh': json.dumps(f'{TALK}Yes.'),
}
DAMAGED = {
    'half': '"a\\ud800"', 'deep': '[' * 9000 + ']' * 9000,
    'digits': '9' * 5000, 'range': '1e' + '9' * 30,
    'twice': '{"a": 1, "a": 2}'}
# What a user's function may yield besides.
OBJECTS = {
    'half': 'a\ud800', 'bytes': b'a', 'tuple': (1, 2), 'set': {1},
    'thing': object(), 'array': np.array([[1, 2], [3, 4]]),
    'digits': 10 ** 5000, 'decimal': decimal.Decimal('NaN'),
    'function': lambda: 0, 'bool': np.True_}

_TEXT = {'text': 'é 我\0', 'long': 'x' * 100_000, 'hh': f'{TALK}Yes.'}
READ = {
    'text': _TEXT | {'empty': '', 'blank': ' \n\t'},
    'filled': _TEXT,
    'question': _TEXT | {'user': 'user'},
    'prompt': _TEXT | {'user': [USER], 'talk': [USER, SAID],
                       'sharegpt': [USER, SAID]},
    'reference': {
        'text': ['é 我\0'], 'long': ['x' * 100_000],
        'hh': [f'{TALK}Yes.'.strip()],
        'integer': ['7'], 'float': ['2.5'], 'big': ['9' * 400],
        'texts': ['a', 'b'], 'numbers': ['1', '0.5']},
    'conversation': {'talk': [USER, SAID], 'sharegpt': [USER, SAID]},
    'asked': _TEXT | {'user': 'user', 'talk': [USER, SAID],
                      'sharegpt': [USER, SAID]},
    'texts': {'texts': ['a', 'b']},
    'grades': {'numbers': [1, 0.5], 'tuple': [1, 2]},
    'dialogue': {'hh': 'Yes.'},
    'other': dict.fromkeys(VALUES),  # of a column that is not used
}


class Source(collections.namedtuple(
    'Source', 'kinds row read user', defaults=(None,))):
  """The types of a source's columns, a good row, and what is read of a path.

  `read(path)` is the columns as they are read, a dict per row; `user` the same
  of the place of a user's function.
  """


def _prompts(records):
  return [dict(prompt=r['prompt'],
               answer=[r['answer'], *r.get('alternatives', ())])
          for r in records]


def _pairs(conversations):
  return [dict(prompt=before[0]['content'] if len(before) == 1 else before,
               response=last['content']) for *before, last in conversations]


def _answered(records):
  return [dict(prompt=r['prompt'], response=r['response']) for r in records]


def _graded(found):
  return [{name: r[name] for name in ('prompt', 'responses', 'grades')}
          for r in found[0]]


def _preferred(found):
  return [dict(prompt=r['prompt'], chosen=r['responses'][0],
               rejected=r['responses'][1]) for r in found[0]]


def _dialogues(found):
  return [dict(chosen=r['responses'][0], rejected=r['responses'][1])
          for r in found[0]]


def _from(read, made, *more):
  """(path) -> the columns that are `made` of what `read` gives."""
  return lambda path: made(read(str(path), 'train', *more))


def _read_preferences(argument, split):
  task = argument if '.py:' in argument else f'jsonl:{argument}'
  return preferences.read_preferences(task, split, {})


def _read_answered(argument, split):
  task = argument if '.py:' in argument else f'jsonl:{argument}'
  return sources.answered(task, split, 0, None, {})


def _read_drafts(argument, split):
  return sources.drafts(f'jsonl:{argument}', split, 0, None)


def _texts(found):
  return [dict(text=text) for text in found]


def _talks(found):
  return [dict(messages=list(messages)) for messages in found]


_NONE = (0, None)
SOURCES = {
    'prompts': Source(
        dict(prompt='question', answer='reference'),
        dict(prompt='1+1?', answer='#### 2'),
        _from(sources.jsonl, _prompts, *_NONE),
        _from(sources.user_records, _prompts, *_NONE)),
    'documents': Source(
        dict(text='text'), dict(text='Once.'),
        _from(sources.jsonl_texts, _texts, *_NONE),
        _from(sources.user_texts, _texts, *_NONE)),
    'pairs': Source(
        dict(prompt='asked', response='text'),
        dict(prompt='Hi', response='Yo'),
        _from(sources.jsonl_conversations, _pairs, *_NONE),
        _from(sources.user_conversations, _pairs, *_NONE)),
    'conversations': Source(
        dict(messages='conversation'), dict(messages=[USER, SAID]),
        _from(sources.jsonl_conversations, _talks, *_NONE),
        _from(sources.user_conversations, _talks, *_NONE)),
    'answers': Source(
        dict(prompt='question', response='filled'),
        dict(prompt='Hi', response='Yo'), _from(_read_answered, _answered)),
    'drafts': Source(
        dict(prompt='question', response='filled'),
        dict(prompt='Hi', response='Yo'), _from(_read_drafts, _answered)),
    'graded': Source(
        dict(prompt='prompt', responses='texts', grades='grades'),
        dict(prompt='Hi', responses=['x', 'y'], grades=[0, 1]),
        _from(_read_preferences, _graded), _from(_read_preferences, _graded)),
    'preferred': Source(
        dict(prompt='prompt', chosen='text', rejected='text'),
        dict(prompt='Hi', chosen='x', rejected='y'),
        _from(_read_preferences, _preferred),
        _from(_read_preferences, _preferred)),
    'dialogues': Source(
        dict(chosen='dialogue', rejected='dialogue'),
        dict(chosen=f'{TALK}x', rejected=f'{TALK}y'),
        _from(_read_preferences, _dialogues),
        _from(_read_preferences, _dialogues)),
}


def _good(source):
  """The columns of a row that is not damaged, as they are read."""
  if source is SOURCES['prompts']:
    return dict(prompt='1+1?', answer=['2'])
  if source is SOURCES['dialogues']:
    return dict(chosen='x', rejected='y')
  return source.row


def _check(read, place, good, expected, case):
  """Rows are as expected; None: refused, in one line with its place."""
  try:
    found = read()
  except errors.ConfigError as problem:
    line = str(problem)
    assert expected is None, (case, line)
    assert '\n' not in line and place in line, (case, line)
    assert problem.field in ('data.task', 'data.options.prompt',
                             'data.options.answer', 'data.options.text'), case
    line.encode()
  else:
    assert expected is not None, case
    wanted = [good] * 4
    wanted[WHERE] = good | expected
    assert found == wanted, case


def _line(rng, source):
  """(case, the damaged line, what is read of its columns; None: refused)."""
  row = {name: json.dumps(value) for name, value in source.row.items()}
  name = rng.choice([*source.kinds, 'other'])
  kind = source.kinds.get(name, 'other')
  damage = rng.choice([*VALUES] * 3 + [*DAMAGED] + [
      'missing', 'cut', 'doubled', 'bytes', 'array', 'none'])
  expected = None
  if damage in VALUES or damage in DAMAGED:
    row[name] = VALUES.get(damage) or DAMAGED[damage]
    if damage in READ[kind]:
      expected = {} if kind == 'other' else {name: READ[kind][damage]}
  elif damage == 'missing':
    row.pop(name, None)
    expected = {} if kind == 'other' else None
  line = ('{' + ', '.join(f'"{n}": {v}' for n, v in row.items()) + '}').encode()
  if damage == 'cut':
    line = line[:rng.randrange(1, len(line))]
  elif damage == 'doubled':
    line += line
  elif damage == 'bytes':
    line = line.replace(b':', b': "\xe5\x8c",', 1)
  elif damage == 'array':
    line = b'[' + line + b']'
  elif damage == 'none':
    expected = {}
  return (damage, name), line, expected


def _written(rng, lines):
  """A file's suffix and content, and the place of the damaged row in it."""
  end = rng.choice([b'\n', b'\r\n'])
  mark = rng.choice([b'', b'\xef\xbb\xbf'])
  if rng.random() < 0.3:
    text = mark + b'[' + end + (b',' + end).join(lines) + b']' + end
    place = f':{WHERE + 2}[{WHERE}]'
    return '.json', text, place
  gaps = [end * rng.choice([1, 1, 2]) for _ in lines]
  text = mark + b''.join(line + gap for line, gap in zip(lines, gaps))
  place = f':{1 + sum(gap.count(10) for gap in map(bytes, gaps[:WHERE]))}'
  if rng.random() < 0.2:
    return '.jsonl.gz', gzip.compress(text, 1), place
  return '.jsonl', text, place


@pytest.mark.parametrize('name', SOURCES)
def test_of_a_file(tmp_path, name):
  rng = random.Random(name)
  source = SOURCES[name]
  good, outcomes = _good(source), collections.Counter()
  whole = json.dumps(source.row).encode()
  for n in range(CASES):
    case, line, expected = _line(rng, source)
    lines = [whole] * 4
    lines[WHERE] = line
    suffix, content, place = _written(rng, lines)
    path = tmp_path / f'{n}{suffix}'
    path.write_bytes(content)
    if case[0] == 'bytes':
      place = place.partition('[')[0]  # is no text, in which arrays are found
    _check(lambda: source.read(path), f'{path}{place}', good, expected,
           (n, case, suffix))
    outcomes[expected is None] += 1
    path.unlink()
  assert min(outcomes.values()) > CASES / 12, outcomes


@pytest.mark.parametrize(
    'name', [name for name, source in SOURCES.items() if source.user])
def test_of_a_function(tmp_path, name):
  rng = random.Random(name)
  source = SOURCES[name]
  good, outcomes = _good(source), collections.Counter()
  (tmp_path / f'data_{name}.py').write_text(
      'ROWS = []\n\ndef rows(split):\n  return ROWS\n')
  place = f'{tmp_path}/data_{name}.py:rows'
  for n in range(CASES):
    column = rng.choice([*source.kinds, 'other'])
    kind = source.kinds.get(column, 'other')
    damage = rng.choice([*VALUES] * 2 + [*OBJECTS] * 2 + ['missing', 'no dict'])
    damaged, expected = dict(source.row), None
    if damage == 'no dict':
      damaged = rng.choice([None, 7, [damaged], object()])
    elif damage == 'missing':
      damaged.pop(column, None)
    else:
      damaged[column] = (OBJECTS[damage] if damage in OBJECTS else
                         json.loads(VALUES[damage]))
      if damage in READ[kind]:
        expected = {column: READ[kind][damage]}
    if kind == 'other' and damage != 'no dict':
      expected = {}
    rows = [source.row] * 4
    rows[WHERE] = damaged
    sources.user_code.load(place, 'data.task')
    sys.modules[f'_user_data_{name}'].ROWS = rows
    _check(lambda: source.user(place), f'{place}[{WHERE}]', good, expected,
           (n, damage, column))
    outcomes[expected is None] += 1
  assert min(outcomes.values()) > CASES / 12, outcomes


def test_of_a_tfds_data_set():
  from r1jax.data import tfds_source
  rng = random.Random(0)
  values = {
      'empty': b'', 'blank': b' \n', 'half': b'\xe5\x8c', 'latin': b'\xff',
      'surrogate': b'\xed\xa0\x80', 'text': 'é'.encode(),
      'nan': np.float32('nan'), 'infinity': np.float64('inf'),
      'integer': np.int64(7), 'bool': np.True_, 'float': np.float32(0.1),
      'list': np.array([1, 2])}
  takes = {'question': {'text': 'é'},
           'answer': {'text': 'é', 'integer': '7', 'float': '0.1'}}
  pair = columns.Pair(columns.Column(columns.question, ('question',)),
                      columns.Column(columns.reference, ('answer',)))
  for n in range(CASES):
    name, damage = rng.choice([*takes]), rng.choice([*values])
    place = f'tfds:sums/train[{n}]'
    example = {'question': b'1+1?', 'answer': b'#### 2', name: values[damage]}
    read = lambda: [None] * WHERE + [tfds_source.record(
        pair, example, place, 'sums', 'math')] + [None]
    good = dict(prompt='1+1?', answer='2', task='sums', verifier='math')
    column = dict(question='prompt', answer='answer')[name]
    if damage in takes[name]:
      assert read()[WHERE] == good | {column: takes[name][damage]}
    else:
      _check(read, place, good, None, (n, name, damage))
