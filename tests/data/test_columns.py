"""The types of columns: what is read of a value, and what is refused."""

import decimal
import fractions
import pickle
import re

import numpy as np
import pytest

from r1jax import errors
from r1jax.data import columns

USER = {'role': 'user', 'content': 'Hi'}
SAID = {'role': 'assistant', 'content': 'Yo'}
CALLS = {'role': 'assistant', 'content': None, 'tool_calls': [{'name': 'f'}]}
PARTS = {'role': 'user', 'content': [{'type': 'text', 'text': 'Hi'}]}
HALF = '\ud800'

# No type takes these.
NOTHING = [None, True, False, {}, {'a': 1}, [None], [[]], [True], [{}], (),
           b'a', object(), HALF, [HALF], {1, 2}, np.array([1, 2])]


class Multiline:
  def __repr__(self):
    return 'a\nb'


def _refused(kind, value):
  column = columns.Column(kind, ('q',))
  with pytest.raises(errors.ConfigError) as caught:
    column.read({'q': value}, 'a.jsonl:3')
  message = str(caught.value)
  assert message.startswith('config.data.task: a.jsonl:3: expected ')
  assert "in 'q', received " in message and '\n' not in message
  message.encode()
  return message


@pytest.mark.parametrize('kind, taken, more', [
    (columns.text, ['', 'a', '\u2028'], [7, ['a'], [USER]]),
    (columns.filled, ['a', ' a\n'], ['', ' \n', 7, [USER]]),
    (columns.question, ['a'],
     ['', '\t', 7, ['a'], [USER, SAID], [SAID], [CALLS],
      [{'role': 'user', 'content': ' '}]]),
    (columns.prompt, ['a', [USER], [USER, SAID, USER], [PARTS]],
     ['', 7, [], ['a']]),
    (columns.reference, ['', 'a', 7, 0.5, [1, 'a', 2.5]],
     [[], [[1]], float('nan'), float('-inf'), [float('inf')], (1, 2),
      10 ** 5000, decimal.Decimal('NaN')]),
    (columns.messages, [[USER], [USER, CALLS, SAID], [PARTS]],
     ['a', 7, [], ['q', 'a'], [{'role': 'user'}], [{'content': 'a'}],
      [{'role': 'user', 'content': None}], [{'role': 7, 'content': 'a'}],
      [{'role': '', 'content': 'a'}], [{'role': 'user', 'content': 7}],
      [{'role': 'user', 'content': []}], [{'role': 'user', 'content': ['a']}],
      [{'role': 'user', 'content': [{'type': 'image', 'text': 'a'}]}],
      [{'role': 'user', 'content': [{'type': 'text'}]}],
      [{'role': 'user', 'content': HALF}],
      [{'role': 'assistant', 'content': None, 'tool_calls': []}]]),
    (columns.conversation, [[USER, SAID]], [[USER], [SAID, USER], []]),
    (columns.texts, [['a'], ['a', '']], ['a', [], ['a', 7], [USER]]),
    (columns.grades, [[1, 0.5, -2]], [1, [], ['a'], [float('nan')], [1e39],
                                      [10 ** 400]]),
])
def test_a_type_takes_its_values_alone(kind, taken, more):
  for value in taken:
    assert columns.Column(kind, ('q',)).read({'q': value}, '') == value
  for value in [*NOTHING, *more, Multiline(), [Multiline()]]:
    _refused(kind, value)


def test_what_is_read_of_other_forms():
  assert columns.question([USER]) == 'Hi'
  said = [{'from': 'system', 'value': 'Be brief.'},
          {'from': 'human', 'value': 'Hi', 'id': 3},
          {'from': 'gpt', 'value': 'Yo', 'role': None}]  # of another's column
  assert columns.conversation(said) == [
      {'role': 'system', 'content': 'Be brief.'}, {**USER, 'id': 3}, SAID]
  for wrong in ({'from': 'bing', 'value': 'a'}, {'from': ['gpt'], 'value': 'a'},
                {'from': 'gpt'}, {'from': 'gpt', 'value': None}):
    _refused(columns.messages, [wrong])


@pytest.mark.parametrize('value, text', [
    (142.0, '142'), (-0.0, '0'), (0.1, '0.1'), (2.5e-7, '2.5e-07'),
    (1e22, '1' + '0' * 22), (1e23, '1' + '0' * 23), (-3e300, '-3' + '0' * 300),
    (2 ** 70, '1180591620717411303424'), (np.int64(3), '3'),
    (np.float32(0.1), '0.1'), (fractions.Fraction(1, 2), '1/2'),
    (decimal.Decimal('2.50'), '2.50'), (decimal.Decimal('1E+3'), '1000')])
def test_a_number_is_written_exactly(value, text):
  assert columns.written(columns.number(value)) == text


@pytest.mark.parametrize('digits, text', [
    ('142.00', '142'), ('0.10', '0.1'), ('0.1', '0.1'), ('-0.0', '0'),
    ('3.14159265358979323846', '3.14159265358979323846'),
    ('12345678901234567890.0', '12345678901234567890'),
    ('1e23', '1' + '0' * 23), ('1e-400', '1e-400')])
def test_digits_that_no_float_holds_are_kept(digits, text):
  number = columns.float_of(digits)
  assert columns.written(columns.number(number)) == text
  other = pickle.loads(pickle.dumps(number))  # what reward functions are given
  assert type(other) is float and other == number == float(digits)


def test_a_column_is_found_by_its_name_and_blamed_on_its_option():
  row = {'a': {'b': {'c': 1}, 'b.c': 2}, 'a.b': 3, 'question': 'Q'}
  read = lambda name: columns.Column(
      columns.number, ('x',), 'answer', name).read(row, 'f:1')
  assert (read('a.b'), read('a.b.c')) == (3, 2)
  for name, message in (
      ('a.c', "options.answer: f:1 has no field 'a.c', only"),
      ('question', "options.answer: f:1: expected .* in 'question', received"),
      (7, 'options.answer: expected the name of a column, received 7')):
    with pytest.raises(errors.ConfigError, match=f'^config.data.{message}'):
      read(name)
  with pytest.raises(errors.ConfigError, match='^config.data.options.answer: '):
    read(None)  # no column has a usual name: the option would give one
  usual = columns.Column(columns.number, ('x', 'question'), 'answer')
  with pytest.raises(errors.ConfigError, match='^config.data.task: f:1: '):
    usual.read(row, 'f:1')
  with pytest.raises(errors.ConfigError, match='^config.data.task: f:1 has no'):
    columns.Column(columns.number, ('x',)).read({None: 1, 'y': 2}, 'f:1')


@pytest.mark.parametrize('value, line', [
    (None, 'None'), (True, 'True'), ('a\nb', r"'a\\nb'"), (HALF, r"'\\ud800'"),
    ('a' * 999, "'a{79}"), ([1] * 999, r'\[1, 1, 1.*'), (Multiline(), 'a b')])
def test_a_refused_value_is_shown_in_a_short_line(value, line):
  assert re.fullmatch(line, columns.shown(value))


@pytest.mark.parametrize('column, value', [
    ('prompt', [dict(role='user', tool_calls=[1])]),
    ('prompt', [dict(role='user', content=' ')]),
    ('messages', [dict(role='user', content='Hi'), dict(
        role='assistant', content='2', reasoning_content=['why'])]),
])
def test_messages_that_hide_what_they_say_are_refused(column, value):
  with pytest.raises(columns.Wrong):
    getattr(columns, column)(value)


def test_all_usual_names_of_a_missing_column_are_said():
  column = columns.Column(columns.question, columns.QUESTIONS, 'prompt')
  with pytest.raises(errors.ConfigError, match=(
      "a:1 has no field 'prompt', 'question' or 'problem', only")):
    column.read({'input': 'Hi'}, 'a:1')
