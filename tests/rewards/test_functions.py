"""A user's own reward functions: in workers, whatever they do."""

import time

import pytest

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.rewards import function_worker
from r1jax.rewards import functions

CODE = '''
import asyncio, os, socket, sys, time

seen = []

def length(response, record):
  print('printed', flush=True)
  return len(response)

def fields(response, record):
  return record['level'], {'record': sorted(record), 'nan': float('nan'),
                           'deep': {'a': [1, 2]}, 'odd': object, 'ok': True}

class Called:
  async def __call__(self, response, record):
    await asyncio.sleep(1)
    return 1

called = Called()

def does(response, record):
  what, _, value = response.partition(' ')
  if what == 'hang':
    time.sleep(60)
  if what == 'crash':
    os.kill(os.getpid(), 9)
  if what == 'exit':
    sys.exit(3)
  if what == 'raise':
    raise Exception('of no known class')
  if what == 'open':
    with open(value, 'w') as file, socket.socket():
      file.write('written')
  if what == 'run':
    return asyncio.run(asyncio.sleep(0, 4))
  if what == 'return':
    return eval(value)
  return 1

def taken(response, record):
  if not os.path.exists(response):
    open(response, 'w').close()
    os.kill(os.getpid(), 9)
  return 1

async def taken_together(response, record):
  return taken(response, record)

async def blocks(response, record):
  if response == 'block':
    time.sleep(60)
  return 1
'''


@pytest.fixture(name='make')
def _make(tmp_path):
  (tmp_path / 'own.py').write_text(CODE)
  made = []

  def make(*names, timeout_seconds=20., **settings):
    made.append(functions.Functions(
        {name: f'{tmp_path}/own.py:{name}' for name in names}, 2,
        timeout_seconds, **settings))
    return made[-1]

  yield make
  for each in made:
    each.close()


def _score(scored_by, texts, **record):
  records = [dict(prompt='?', answer='1', task='t', **record)] * len(texts)
  return scored_by.score(
      records, [rewards_lib.Response(text, 7, False) for text in texts])


@pytest.mark.parametrize('value', [1e10, -1e300, float('nan'), float('inf')])
def test_a_reward_whose_square_float32_does_not_hold_is_an_error(value):
  status, number, detail, _ = function_worker._outcome(value, 1.)
  assert (status, number) == ('errors', 0.)
  assert detail.startswith('expected a finite number of at most 1e+09 in size')
  assert function_worker._outcome(-1e9, 1.)[:2] == ('ok', -1e9)


def test_a_function_sees_the_text_and_all_fields(make, capfd):
  scored = _score(make('length', 'fields'), ['a', 'bcd'], step=5,
                  row=dict(level=2, answer='raw'))
  assert scored.values['length'].tolist() == [1, 3]
  assert scored.values['fields'].tolist() == [2, 2]
  columns = scored.columns[0]
  assert columns['fields/record'] == [
      'answer', 'finished', 'level', 'prompt', 'row', 'step', 'task', 'tokens']
  assert columns['fields/nan'] == 'nan' and columns['fields/ok'] is True
  assert columns['fields/deep'] == {'a': [1, 2]}
  assert columns['fields/odd'] == "<class 'object'>"
  assert not any(scored.counters.values()) and not scored.errors
  assert 'printed' in capfd.readouterr().err


def test_async_calls_of_a_batch_run_at_once(make):
  scored_by = make('called')
  _score(scored_by, ['a'] * 2)
  began = time.monotonic()
  assert _score(scored_by, ['a'] * 40).values['called'].tolist() == [1.] * 40
  assert time.monotonic() - began < 15


def test_a_fault_costs_its_response_only(make, tmp_path):
  texts = ['hang', 'crash', 'exit', 'raise', 'return None', 'return "1"',
           'return float("inf")', 'return 1, 2', 'return [1, 2]',
           'return 1, {"x": "x" * 10**6}',
           f'open {tmp_path}/file', 'run', 'return True', 'return (2.5, {})']
  scored = _score(make('does', timeout_seconds=3.), texts)
  assert scored.values['does'].tolist() == [0.] * 10 + [1., 4., 1., 2.5]
  assert scored.counters == {'does_errors': 9, 'does_timeouts': 1}
  assert (tmp_path / 'file').read_text() == 'written'
  assert len(scored.errors) == 10
  assert 'does: Exception: of no known class' in scored.errors


@pytest.mark.parametrize('name', ['taken', 'taken_together'])
def test_a_call_whose_worker_the_system_takes_is_made_again(
    make, tmp_path, name):
  scored_by = make(name)
  scored = _score(scored_by, [f'{tmp_path}/{n}' for n in range(2)])
  assert scored.values[name].tolist() == [1., 1.]
  assert not any(scored.counters.values()) and scored_by.restarts == 2


def test_an_async_function_that_blocks_is_ended(make):
  scored = _score(make('blocks', timeout_seconds=1.), ['a', 'b', 'block'])
  assert scored.values['blocks'].tolist() == [1., 1., 0.]
  assert scored.counters == {'blocks_errors': 0, 'blocks_timeouts': 1}


@pytest.mark.parametrize('name, place, message', [
    ('x', 'own.py', "config.rewards.functions.x: expected 'FILE.py:FUNCTION'"),
    ('x', '{0}/won.py:f', 'functions.x: no such file: .*did you mean .*own.py'),
    ('x', '{0}/own.py:lenth', "functions.x: .* no function 'lenth'; did you mea"
     'n length'),
    ('x', '{0}/bad.py:f', 'functions.x: .*:f cannot be loaded: NameError'),
    ('x', '{0}/ends.py:f', 'functions.x: .*ends.py:f ends the program'),
    ('x', 'no.such.module:f', "functions.x: no module named 'no.such.module'"),
    ('format', '{0}/own.py:length', 'functions.format: the name is taken'),
])
def test_a_function_that_is_none_is_refused(tmp_path, name, place, message):
  (tmp_path / 'own.py').write_text(CODE)
  (tmp_path / 'bad.py').write_text('undefined()')
  (tmp_path / 'ends.py').write_text('raise SystemExit(0)')
  with pytest.raises(errors.ConfigError, match=message):
    functions.Functions({name: place.format(tmp_path)}, 1, 20.,
                        reserved=('format',))


def test_weights_of_functions(make, tmp_path):
  make()
  record = dict(prompt='?', answer='1', task='t', verifier='exact')
  settings = dict(max_tokens=9, workers=1, timeout_seconds=20., answer='tags')
  place = f'{tmp_path}/own.py:length'
  for weights, total in (({}, 3.), ({'length': .5}, 1.5), ({'length': 0}, 0.)):
    with rewards_lib.Scorer(
        weights, functions={'length': place}, **settings) as scorer:
      scores = scorer.score([record], [rewards_lib.Response('abc', 3, True)])
    assert scores.total == [total] and scores.parts['length'] == [3.]
    assert scores.counters['length_errors'] == 0
  with pytest.raises(errors.ConfigError, match='weights.lenth: no such reward'):
    rewards_lib.Scorer({'lenth': 1.}, functions={'length': place}, **settings)


def test_means_of_columns():
  rows = [{'f/a': 1, 'f/b': 'x', 'reward': 1.}, {'f/a': 4., 'f/c': None},
          {'f/b': 2, 'f/a': float('nan')}]
  assert functions.column_means(rows) == {'f/a': 2.5, 'f/b': 2.}
