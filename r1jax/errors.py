"""Errors that are shown as one line: of a configuration, and of a run."""

from collections.abc import Callable, Collection, Iterable, Iterator
import contextlib
import difflib
import errno
import os
import re
import stat
from typing import Any

_FEW = 12  # as many names are listed in full
_LONG = 300  # as many letters of a value are shown

_ROOM = 'make room on its disk'
_RIGHTS = 'let this user read and write there'
REMEDIES = {  # of faults of the machine, by their errno
    errno.ENOSPC: _ROOM, errno.EDQUOT: 'make room in this user\'s quota',
    errno.EFBIG: 'raise the limit on the size of a file (ulimit -f)',
    errno.EMFILE: 'raise the limit on open files (ulimit -n)',
    errno.ENFILE: 'let other programs close files',
    errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS, errno.EROFS: _RIGHTS,
    errno.EIO: 'look at its disk',
}
_NO_FILES = {  # which have a path
    stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a pipe', stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device', stat.S_IFSOCK: 'a socket'}


class ConfigError(ValueError):
  """A value that cannot be used; shown to the user as one line, no traceback.

  Attributes:
    field: what to change, a field of the config ('rl.group') or a flag
      ('--workdir'); '' if it is neither.
    message: what was expected and what was received.
  """

  def __init__(self, field: str, message: str):
    super().__init__(field, message)
    self.field, self.message = field, message

  def __str__(self) -> str:
    if not self.field:
      return self.message
    prefix = '' if self.field.startswith('-') else 'config.'
    return f'{prefix}{self.field}: {self.message}'


class RunError(RuntimeError):
  """A run that cannot go on: one line that says what to do, no traceback.

  The configuration is not at fault; what was saved before stays as it is.
  """


def of_system(number: int | None, words: str, path: Any) -> RunError:
  """The error of what the operating system refused.

  Args:
    number: its errno; None if there is none.
    words: what it says.
    path: the file or directory.
  """
  if number is not None:
    words = os.strerror(number)
  remedy = REMEDIES.get(number, 'look at this path')
  return RunError(
      f'{path}: {words}; {remedy}, then start the same command again')


@contextlib.contextmanager
def faults(path: Any) -> Iterator[None]:
  """Inside, an error of the operating system is a `RunError` with its path.

  `path` is named where the error itself names no file, as when a disk is full.
  """
  try:
    yield
  except OSError as error:
    raise of_system(
        error.errno, str(error), error.filename or path) from error


@contextlib.contextmanager
def no_exit(field: str, place: str) -> Iterator[None]:
  """Inside, user's code at `place` that ends the program is a `ConfigError`.

  After its sys.exit(0) a run that has done nothing would seem to have ended.
  """
  try:
    yield
  except SystemExit as end:
    raise ConfigError(field, f'{place} ends the program, by {end!r}; '
                      'expected it to return, or to raise an error') from end


def expected(field: str, wanted: str, received: Any) -> ConfigError:
  """The error of a field that is not as `wanted`."""
  return ConfigError(field, f'expected {wanted}, received {shown(received)}')


def check_text(field: str, text: str) -> None:
  """Raises `ConfigError` about `field` for what the command line has as bytes.

  Paths may be that, but files in JSON and most libraries take text alone.
  """
  try:
    text.encode('utf-8')
  except UnicodeEncodeError:
    raise expected(field, 'text in UTF-8, also of a path',
                   os.fsencode(text)) from None


def no_file(path: str | os.PathLike) -> str:
  """Says what is at a path where a file was expected."""
  if not os.path.exists(path):
    return f'no such file: {path}'
  kind = _NO_FILES.get(stat.S_IFMT(os.stat(path).st_mode), 'no plain file')
  return f'{path} is {kind}; expected a file'


def shown(value: Any) -> str:
  """A value in an error; the beginning of a long one."""
  text = repr(value)
  return text if len(text) <= _LONG else f'{text[:_LONG]}...'


def nearest(word: str, choices: Iterable[str], prefix: str = '') -> str:
  """'; did you mean X?' for the choice nearest to `word`, else a short list."""
  choices = [str(choice) for choice in choices]
  few = len(choices) <= _FEW
  close = difflib.get_close_matches(word, choices, 1, 0.5 if few else 0.)
  if close:
    return f'; did you mean {prefix}{close[0]}?'
  return '; valid: ' + ', '.join(prefix + choice for choice in choices)


def check_choice(field: str, value: Any, choices: Collection[str]) -> None:
  """Raises `ConfigError` about `field` unless `value` is one of `choices`.

  More than 12 choices are counted, not listed; the nearest is named.
  """
  if value in choices:
    return
  names = sorted(map(str, choices))
  close = difflib.get_close_matches(str(value), names, 1, .5)
  listed = ', '.join(names) if len(names) <= _FEW else f'{len(names)} names'
  raise ConfigError(field, f'expected one of {listed}; received {shown(value)}'
                    + (f'; did you mean {close[0]}?' if close else ''))


@contextlib.contextmanager
def section(name: str, at: str) -> Iterator[None]:
  """Inside, an error about `config.<name>` is one about `config.<at>`.

  For a second section of the same form: with section('data', at='tests.a.data')
  an error of field data.task becomes one of tests.a.data.task, and where its
  words name config.data.shots they name config.tests.a.data.shots.
  """
  try:
    yield
  except ConfigError as error:
    outer, dot, rest = error.field.partition('.')
    if outer != name:
      raise
    raise ConfigError(f'{at}{dot}{rest}', _moved(
        error.message, [name], lambda _: at)) from error


@contextlib.contextmanager
def stage(name: str, fields: Iterable[str]) -> Iterator[None]:
  """Inside, errors are of a stage of a pipeline, whose config is a part of its.

  What an error says of config.optim.lr, as its field or in its words, is said
  of config.stages.<name>.optim.lr; its type and what it was raised from stay.

  Args:
    name: of the stage.
    fields: the first names of its config's fields, such as 'optim'.
  """
  fields, place = list(fields), f'stages.{name}'
  moved = lambda text: _moved(text, fields, lambda field: f'{place}.{field}')
  try:
    yield
  except ConfigError as error:
    error.message = moved(error.message)
    if error.field and not error.field.startswith('-'):
      error.field = f'{place}.{error.field}'
    raise
  except RunError as error:
    error.args = (moved(str(error)),)
    raise


def _moved(text: str, fields: Iterable[str], place: Callable[[str], str]
          ) -> str:
  """The text with config.<place(field)> for each config.<field> of `fields`."""
  names = '|'.join(map(re.escape, fields))
  return re.sub(rf'(?<![\w./])config\.({names})\b',
                lambda found: f'config.{place(found[1])}', text)


class at:  # pylint: disable=invalid-name
  """Inside, the message of an error begins with `place`, if there is one.

  It is around every row of a data set: a generator would take three times as
  long.
  """

  def __init__(self, place: str):
    self._place = place

  def __enter__(self):
    pass

  def __exit__(self, kind, error, trace):
    if self._place and isinstance(error, ConfigError):
      raise type(error)(
          error.field, f'{self._place}: {error.message}') from error


@contextlib.contextmanager
def renamed(field: str, to: str) -> Iterator[None]:
  """Inside, any error is about `config.<to>`, and 'field (x)' is 'to (x)'."""
  try:
    yield
  except ConfigError as error:
    detail = error.field.removeprefix(field)
    raise ConfigError(
        to if detail == error.field else to + detail, error.message) from error
