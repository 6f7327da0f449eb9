"""What a command prints: best effort, while its files and status are not.

A closed pipe, a lost terminal, a full disk under a log, an encoding without an
arrow: none of them may end a run. `say` prints what the run itself says;
`secure` makes the streams such that nothing printed by anyone raises.

Only the standard library is imported, so that a command can begin with this.
"""

import codecs
import io
import os
import sys
from typing import TextIO
import unicodedata

_PLAIN = {'→': '->', '←': '<-', '−': '-', '─': '-', '━': '=', '·': '.'}
_ERRORS = 'r1jax.plain'  # the name of this way to encode


def say(text: str, file: TextIO | None = None, end: str = '\n') -> None:
  """Prints `text`, if it can be printed; by default to standard output."""
  file = sys.stdout if file is None else file
  if file is None:  # it was closed before Python began
    return
  encoding = getattr(file, 'encoding', None) or 'utf-8'
  try:
    file.write(text.encode(encoding, _ERRORS).decode(encoding) + end)
    file.flush()
  except (OSError, ValueError):  # ValueError: the stream is closed
    _point_to_nowhere(file)


def dims(file: TextIO | None) -> bool:
  """Whether what is written to `file` may be dimmed: on a terminal that can.

  Not where NO_COLOR is set (no-color.org).
  """
  try:
    return bool(file and file.isatty() and not os.environ.get('NO_COLOR')
                and os.environ.get('TERM') != 'dumb')
  except ValueError:  # it is closed
    return False


def dimmed(text: str) -> str:
  """The text in fainter letters, on a terminal."""
  return f'\x1b[2m{text}\x1b[22m' if text else text


def visible(text: str, kinds: tuple[str, ...] = ('Cc', 'Cf', 'Cs')) -> str:
  """The text with control and invisible characters as escapes.

  Else a model could move the cursor and colour the screen. `kinds` are the
  categories of Unicode that are escaped; line ends and tabs never are.
  """
  return ''.join(
      letter if letter in '\n\t' or unicodedata.category(letter) not in kinds
      else ascii(letter)[1:-1] for letter in text)


def secure() -> None:
  """Makes standard output and error best effort for all who print to them.

  A descriptor that was closed before Python began is opened on /dev/null: else
  the next file would get its number, and what XLA prints would go into it.
  """
  while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
  os.close(number)
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if stream is None:  # it was closed
      setattr(sys, name, open(
          os.devnull, 'w', encoding='utf-8', errors=_ERRORS))
      continue
    if not isinstance(stream, io.TextIOWrapper):  # a notebook's
      continue
    say('', stream, end='')  # flushes what it holds
    setattr(sys, name, io.TextIOWrapper(
        io.BufferedWriter(_BestEffort(stream.fileno(), 'w', closefd=False)),
        stream.encoding, _ERRORS, line_buffering=stream.line_buffering,
        write_through=stream.write_through))


class _BestEffort(io.FileIO):
  """A file to which every write succeeds, also one that is lost."""

  def write(self, data) -> int:
    try:
      written = super().write(data)
    except OSError:
      return len(data)
    return len(data) if written is None else written  # None: would block


def _point_to_nowhere(file: TextIO) -> None:
  """Lets later writes succeed, and the interpreter's flush at its end."""
  try:
    number = os.open(os.devnull, os.O_WRONLY)
    os.dup2(number, file.fileno())
    os.close(number)
  except (OSError, ValueError):
    pass  # no descriptor: there is nothing that Python flushes at its end


def _plain(error: UnicodeError) -> tuple[str, int]:
  """What stands for characters that an encoding lacks."""
  if not isinstance(error, UnicodeEncodeError):
    raise error
  lacking = error.object[error.start:error.end]
  return ''.join(_PLAIN.get(letter, '?') for letter in lacking), error.end


codecs.register_error(_ERRORS, _plain)
