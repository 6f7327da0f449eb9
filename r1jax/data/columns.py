"""The types of columns: what a row may hold, for every source and stage.

    question    text that is not empty, or a list with one message, the user's
    prompt      the same, or any messages, where prompts are conversations
    reference   text, a finite number, or a list of these that is not empty
    text        a document, or an answer to learn from
    messages    {'role': text, 'content': text or parts that are text}, ..., or
                ShareGPT's {'from': 'human', 'value': text}; a message that
                calls tools may have no content
    texts       the responses to a prompt
    grades      finite numbers, one for each response

null, true and false are none of these. A type is a function from a value to
what is read of it, which raises `Wrong`; `Column.read` makes that one line with
the place of the row, the column and the field of the config to change.
"""

from collections.abc import Callable, Mapping, Sequence
import decimal
import json
import math
import numbers
import pickle
import reprlib
from typing import Any, NamedTuple

from r1jax import errors
from r1jax.data import spoken

Type = Callable[[Any], Any]

QUESTIONS = ('prompt', 'question', 'problem')  # names, tried in this order
ANSWERS = ('response', 'answer')

_ROLES = {'human': 'user', 'gpt': 'assistant'}  # ShareGPT's names
_SHAREGPT = (*_ROLES, *_ROLES.values(), 'system')
_LARGEST_GRADE = 3e38  # of a float32, nearly
_LARGEST = 10 ** 4_300  # integer that Python writes


class Wrong(Exception):
  """A value is not of its column's type: what was `expected`, and `received`.
  """

  def __init__(self, expected: str, received: Any):
    super().__init__(expected, received)
    self.expected, self.received = expected, received


class Column(NamedTuple):
  """A column: its type, and what may name it."""
  type: Type
  usual: Sequence[str]  # names, tried in this order, where none is given
  option: str | None = None  # config.data.options.<option> gives its name
  given: str | None = None  # the name; 'a.b' is field b of the object in a

  def name(self, row: Mapping[str, Any]) -> str | None:
    """The name that it has in a row; None: the row has no such column."""
    for name in self.usual if self.given is None else (self.given,):
      if name in row or '.' in name and _path(row, name):
        return name
    return None

  def read(self, row: Mapping[str, Any], place: str) -> Any:
    """What the column holds in a row; ConfigError if it is missing or wrong."""
    if self.given is not None and not isinstance(self.given, str):
      raise errors.expected(
          f'data.options.{self.option}', 'the name of a column', self.given)
    name = self.name(row)
    if name is None:
      field = f'data.options.{self.option}' if self.option else 'data.task'
      raise errors.ConfigError(
          field, f'{place} has no field {self._names()}, only '
          f'{sorted(map(str, row))}')
    try:
      return self.type(row[name] if name in row else _path(row, name)[0])
    except Wrong as problem:
      raise self.refused(
          place, problem.expected, problem.received, name) from problem

  def _names(self) -> str:
    """'prompt', 'question' or 'problem'."""
    *names, last = map(repr, self.usual if self.given is None else [self.given])
    return f'{", ".join(names)} or {last}' if names else last

  def refused(self, place: str, expected: str, received: Any,
              name: str | None = None) -> errors.ConfigError:
    """The error of a value of this column, in the row at `place`."""
    field = 'data.task' if self.given is None else f'data.options.{self.option}'
    return errors.ConfigError(
        field, f'{place}: expected {expected} in '
        f'{name or self.given or self.usual[0]!r}, received {shown(received)}')


class Pair(NamedTuple):
  """The columns of a question and its answer."""
  question: Column
  answer: Column
  more: Column | None = None  # text put after the question

  def read(self, row: Mapping[str, Any], place: str) -> tuple[Any, Any]:
    """(question, answer) of a row; ConfigError if one is missing or wrong."""
    question = self.question.read(row, place)
    more = self.more.read(row, place) if self.more else ''
    return (f'{question}\n{more}' if more.strip() else question,
            self.answer.read(row, place))


def named_pair(asked: Type, said: Type, prompt: str | None,
               more: str | None, answer: str | None,
               usual: Sequence[str] = ANSWERS) -> Pair:
  """The pair of a file: the options prompt, input and answer name its columns.

  `asked` and `said` are their types, `usual` the answer's names where none is
  given.
  """
  return Pair(
      Column(asked, QUESTIONS, 'prompt', prompt),
      Column(said, usual, 'answer', answer),
      None if more is None else Column(optional, (), 'input', more))


def usual_pair(asked: Type, said: Type) -> Pair:
  """The pair of a user's function, whose options are its own."""
  return Pair(Column(asked, QUESTIONS), Column(said, ANSWERS))


def _path(row: Mapping[str, Any], name: str) -> tuple[Any, ...]:
  """(value,) of the column `name`, 'a' or 'a.b'; () if there is none."""
  if name in row:
    return row[name],
  first, dot, rest = name.partition('.')
  inside = row.get(first) if dot else None
  return _path(inside, rest) if isinstance(inside, Mapping) else ()


def shown(value: Any) -> str:
  """A value as one short line."""
  try:
    line = repr(value[:80]) if isinstance(value, str) else reprlib.repr(value)
  except ValueError:  # an integer of too many digits
    line = f'a long {type(value).__name__}'
  return ' '.join(line.split())[:80]


def text(value: Any) -> str:
  """A text; half a surrogate pair cannot be tokenised or written."""
  if not isinstance(value, str):
    raise Wrong('a text', value)
  try:
    if not value.isascii():
      value.encode()
  except UnicodeEncodeError as problem:
    raise Wrong('a text without half surrogate pairs', value) from problem
  return value


def filled(value: Any) -> str:
  """A text that is not empty."""
  if not text(value).strip():
    raise Wrong('a text that is not empty', value)
  return value


def optional(value: Any) -> str:
  """A text, '' where there is none."""
  return '' if value is None else text(value)


def question(value: Any) -> str:
  """A prompt as text: a text, or the content of the user's only message."""
  if isinstance(value, list):
    said = messages(value)
    if [message['role'] for message in said] != ['user']:
      raise Wrong("a text, or a message of the user's alone (a system message "
                  'is config.data.system)', value)
    value = said[0].get('content')
  return filled(value)


def prompt(value: Any) -> str | list[spoken.Message]:
  """A prompt: a text, or the messages before the answer."""
  if not isinstance(value, list):
    return filled(value)
  said = messages(value)
  if not spoken.texts(said[-1]):
    raise Wrong('messages whose last is not empty', value)
  return said


def messages(value: Any) -> list[spoken.Message]:
  """Messages, each with a role and a content."""
  if not isinstance(value, list | tuple) or not value:
    raise Wrong("messages, {'role': ..., 'content': ...}", value)
  return list(map(_message, value))


def conversation(value: Any) -> list[spoken.Message]:
  """Messages of which the assistant's is the last."""
  said = messages(value)
  if said[-1]['role'] != 'assistant':
    raise Wrong("messages of which the assistant's is the last", value)
  return said


def _message(value: Any) -> spoken.Message:
  if not isinstance(value, Mapping):
    raise Wrong("messages, {'role': ..., 'content': ...}", value)
  if 'from' in value and value.get('role') is None:
    value = _of_sharegpt(value)
  role, content = value.get('role'), value.get('content')
  if not isinstance(role, str) or not role:
    raise Wrong('messages that have a role', value)
  for name in spoken.THOUGHTS:
    if value.get(name) is not None and not isinstance(value[name], str):
      raise Wrong(f'messages whose {name} is a text', value)
  if content is None and role == 'assistant' and any(
      value.get(name) for name in spoken.CALLS):
    return value
  parts = content if isinstance(content, list) and content else [
      {'type': 'text', 'text': content}]
  for part in parts:
    if not (isinstance(part, Mapping) and part.get('type') == 'text'
            and isinstance(part.get('text'), str)):
      raise Wrong('messages whose content is a text', value)
    text(part['text'])
  return value


def _of_sharegpt(value: spoken.Message) -> spoken.Message:
  """{'from': 'human', 'value': ...} -> {'role': 'user', 'content': ...}."""
  said = value['from']
  if not isinstance(said, str) or said not in _SHAREGPT:
    raise Wrong(f'messages from {", ".join(_SHAREGPT)}', value)
  return {'role': _ROLES.get(said, said), 'content': value.get('value')} | {
      name: value[name] for name in value
      if name not in ('from', 'value', 'role', 'content')}


def number(value: Any) -> Any:
  """A finite number; true and false are none."""
  if isinstance(value, bool) or not isinstance(
      value, numbers.Real | decimal.Decimal):
    raise Wrong('a finite number', value)
  if not (abs(value) < _LARGEST if isinstance(value, numbers.Rational)
          else math.isfinite(value)):
    raise Wrong('a finite number', value)
  return value


def reference(value: Any) -> Any:
  """A reference answer: a text, a number, or several right ones."""
  several = value if isinstance(value, list) else [value]
  try:
    for each in several:
      text(each) if isinstance(each, str) else number(each)
    if several:
      return value
  except Wrong as problem:
    value = problem.received
  raise Wrong('a text, a finite number or a list of these', value)


def tolerance(value: Any) -> float:
  """A relative tolerance."""
  if not 0 <= number(value) < 1:
    raise Wrong('a relative tolerance, at least 0 and below 1', value)
  return float(value)


def texts(value: Any, each: Type = text) -> list[str]:
  """The responses to a prompt; `each` is the type of one."""
  if not isinstance(value, list | tuple) or not value:
    raise Wrong('texts', value)
  return list(map(each, value))


def objects(value: Any) -> list[Mapping[str, Any]]:
  """A list of objects."""
  if not isinstance(value, list) or not all(
      isinstance(each, Mapping) for each in value):
    raise Wrong('a list of objects', value)
  return value


def grades(value: Any) -> list[float]:
  """The grades of responses."""
  if not isinstance(value, list | tuple) or not value:
    raise Wrong('a number for each response', value)
  for each in map(number, value):
    if not -_LARGEST_GRADE <= each <= _LARGEST_GRADE:
      raise Wrong('numbers of a float32', each)
  return list(value)


def json_value(value: Any) -> Any:
  """What JSON can hold."""
  try:
    json.dumps(value, ensure_ascii=False).encode()
  except (TypeError, ValueError, RecursionError) as problem:
    raise Wrong('what JSON can hold', value) from problem
  return value


def pickled(value: Any, place: str) -> bytes:
  """A row as bytes, as it is kept; `place` is where it is.

  Raises:
    ConfigError: it has a field that cannot be pickled, of a user's function.
  """
  try:
    return pickle.dumps(value)
  except (AttributeError, TypeError, pickle.PicklingError) as problem:
    raise errors.ConfigError(
        'data.task', f'{place}: a field cannot be pickled: {problem}'
        ) from problem


class Digits(float):
  """A number that no float is equal to, with the digits of its file.

  Elsewhere (pickled, as JSON) it is the nearest float.
  """

  def __new__(cls, digits: str):
    value = super().__new__(cls, digits)
    value.digits = digits
    return value

  def __reduce__(self):
    return float, (float(self),)


def float_of(digits: str) -> float:
  """The float written as `digits`, which knows them if it is another number.

  Raises:
    ValueError: the exponent is out of any range.
  """
  value = float(digits)
  try:
    exact = decimal.Decimal(digits)
  except decimal.InvalidOperation as problem:
    raise ValueError(f'{digits:.40} is out of range') from problem
  return value if exact == decimal.Decimal(repr(value)) else Digits(digits)


def written(value: Any) -> str:
  """A number as text, exactly: 142.0 -> '142', 1e23 -> '100000...', 0.1."""
  if isinstance(value, numbers.Rational):
    return str(value)
  digits = getattr(value, 'digits', None) or str(value)
  exact = decimal.Decimal(digits)
  whole = exact.to_integral_value()
  return str(int(whole)) if exact == whole else digits
