"""Talks with a model: a run's, a published one's, or one of a GGUF file.

    python -m r1jax.chat --model=/tmp/r1_zero
    python -m r1jax.chat --model=smollm2 --prompt='What is 6 * 7?'

--model is all that config.init_from may be. It is asked in the template of its
training, or in its own chat template; --template names another. Its thinking is
dimmed on a terminal (unless NO_COLOR is set), and dropped from the answers that
it is shown again, as DeepSeek-R1's template does. Ctrl-C stops an answer,
Ctrl-D or /quit ends; /help lists what else there is.

With --prompt, or --prompt=- for standard input, the answer alone is printed to
standard output, all else to standard error.

Temperature 0.6 and top-p 0.95 are those of the paper's evaluation (arXiv
2501.12948, 3). The model runs on one device.
"""

import signal

from r1jax import terminal

if __name__ == '__main__':  # before the imports, which take their time
  signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is to be saved
  terminal.secure()

# pylint: disable=wrong-import-position
import argparse
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import io
import sys
import time
from typing import Any, TextIO

from r1jax import command

if __name__ == '__main__':
  with command.reported():
    command.import_jax()

import jax

from r1jax import errors
from r1jax import models
from r1jax import workdir as workdir_lib
from r1jax.data import streamed
from r1jax.data import thinking
from r1jax.parallel import backend
from r1jax.stages import model_source
from r1jax.stages import prompting
from r1jax.stages import rollouts
from r1jax.stages import streaming
from r1jax.training import surroundings

HELP = '''\
/reset         begins a new conversation
/system TEXT   sets the system message; without TEXT removes it
/help          prints this
/quit          ends, as Ctrl-D does
Ctrl-C         stops an answer; what was said of it stays
A line that begins with // is a question that begins with /.'''
_ASK = '> '
_CACHE = 256  # tokens of the first cache: most answers compile one program
_ESCAPED = ('Cc', 'Cs')  # of what a model writes to a terminal


class Chat:
  """A conversation with a model: what was said, and what comes next."""

  def __init__(self, asked: prompting.Prompting,
               sample: Callable[..., Iterator[list[int]]], *, max_len: int,
               max_tokens: int, out: TextIO | None = None,
               note: Callable[[str], Any] | None = None):
    """Begins an empty conversation.

    Args:
      asked: how the model is asked.
      sample: (prompt's ids, turn, most tokens) -> its tokens, as they come.
      max_len: tokens that the model reads at most, its answer among them.
      max_tokens: the longest answer.
      out: where answers go; by default standard output.
      note: shows what is not an answer; by default on standard error.
    """
    self.asked, self.history = asked, []
    self._sample, self._max_len, self._max_tokens = sample, max_len, max_tokens
    self._out, self._note, self._turn = out or sys.stdout, note or say, 0
    self._reading = self._interrupted = False

  def answer(self, question: str) -> bool:
    """Prints the answer to a question as it comes, and remembers both.

    Returns:
      Whether there was room for one.

    Raises:
      ConfigError: the template refuses the conversation.
    """
    prompt = self.asked.text(question, self.history)
    ids = self.asked.tokens(prompt)
    room = self._max_len - len(ids)
    if room < 1:
      self._note(f'the conversation has {len(ids)} tokens, as many as the '
                 f'model reads ({self._max_len}) or more: /reset begins anew')
      return False
    opened = thinking.opened(prompt)
    text, parts = streamed.Text(self.asked.vocab), streamed.Parts(opened)
    said, drawn, ended, times = '', 0, False, [time.monotonic()]
    for new in self._sample(ids, self._turn, min(room, self._max_tokens)):
      times.append(time.monotonic())
      if opened and not drawn:  # by the template; the reader should know
        self._show([(True, thinking.OPEN)])
      drawn += len(new)
      ended = bool(new) and new[-1] in self.asked.vocab.eos_ids
      piece = text.add(new[:-1] if ended else new)
      piece = piece if said else piece.lstrip()  # the first has a space
      said += piece
      self._show(parts.add(piece))
      if ended or self._interrupted:
        break
    said += (rest := text.rest())
    self._show([*parts.add(rest), *parts.rest(), (False, '\n')])
    self._turn += 1
    self._remember(question, said, parts.thinks)
    self._note(_figures(drawn, times) + (
        '' if ended else '; stopped' if self._interrupted else
        f'; cut at --max_tokens={self._max_tokens}' if room > self._max_tokens
        else f'; cut at the {self._max_len} tokens that the model reads'))
    return True

  def _remember(self, question: str, said: str, thinks: bool) -> None:
    """Adds a turn to the history, unless it has not come to an answer."""
    answer = said.rpartition(thinking.END_OF_THINKING)[2]
    if thinks or not answer.strip():
      self._note('no answer: this turn is not part of the conversation')
      return
    self.history.append((question, answer.strip()))

  def _show(self, parts) -> None:
    """Prints parts of an answer; the thinking is dimmed on a terminal."""
    dims = terminal.dims(self._out)
    for thinks, text in parts:
      if self._out.isatty():
        text = terminal.visible(text, _ESCAPED)
      terminal.say(terminal.dimmed(text) if thinks and dims else text,
                   self._out, end='')

  def command(self, line: str) -> bool:
    """Does what a line with a '/' says; returns whether to go on."""
    name, _, rest = line[1:].partition(' ')
    if name in ('quit', 'exit', 'bye'):
      return False
    if name == 'reset':
      self.history = []
      self._note('a new conversation')
    elif name == 'system':
      self._set_system(rest.strip() or None)
    elif name == 'help':
      self._note(HELP)
    else:
      self._note(f'/{name} is none of /reset, /system, /help, /quit; to ask '
                 f'it, begin with //')
    return True

  def _set_system(self, system: str | None) -> None:
    """Another system message, if the template has one."""
    self.asked = self.asked._replace(system=system).checked('/system')
    self._note('the system message is set' if system else
               'there is no system message')

  def talk(self, read: Callable[[], str]) -> None:
    """Answers each line that `read` returns, until it raises EOFError.

    Ctrl-C gives up the line that is being read, or stops the answer.
    """
    before = signal.signal(signal.SIGINT, self._interrupt)
    try:
      while True:
        try:
          line = self._read(read).strip()
        except KeyboardInterrupt:
          self._note('\n/quit or Ctrl-D ends')
          continue
        except EOFError:
          return
        if not self._take(line):
          return
    finally:
      signal.signal(signal.SIGINT, before)

  def _read(self, read: Callable[[], str]) -> str:
    self._interrupted, self._reading = False, True
    try:
      return read()
    finally:
      self._reading = False

  def _interrupt(self, *_) -> None:
    """Ctrl-C is raised where a line is read alone: jax has callbacks, too."""
    reading, self._reading, self._interrupted = self._reading, False, True
    if reading:
      raise KeyboardInterrupt

  def _take(self, line: str) -> bool:
    """Does what a line says, or answers it; returns whether to go on."""
    try:
      errors.check_text('', line)
      if line.startswith('/') and not line.startswith('//'):
        return self.command(line)
      if line:
        self.answer(line.removeprefix('/') if line[0] == '/' else line)
    except errors.ConfigError as problem:  # of this line alone
      self._note(problem.message)
    return True


def say(text: str) -> None:
  """Prints a note to standard error, dimmed on a terminal.

  It may have words of a model's template or of a workdir's files.
  """
  text = terminal.visible(text)
  terminal.say(
      terminal.dimmed(text) if terminal.dims(sys.stderr) else text, sys.stderr)


def _figures(drawn: int, times: list[float]) -> str:
  """The tokens and seconds of an answer, from when its tokens came."""
  words = f'{drawn} tokens'
  if len(times) > 1:
    words += f', the first after {times[1] - times[0]:.1f} s'
  if len(times) > 2 and times[-1] > times[1]:
    words += f', {(drawn - 1) / (times[-1] - times[1]):.1f} a second'
  return words


def load(model: str, settings: rollouts.Settings, template: str | None = None,
         note: Callable[[str], Any] = say
         ) -> tuple[prompting.Prompting, streaming.Streamer, int]:
  """How a model is asked, its sampler, and the tokens that it reads at most.

  Args:
    model: as config.init_from.
    settings: how to sample; `eos_ids` are set to the model's.
    template: if not that of its training.
    note: shows what takes long.

  Raises:
    ConfigError: names --model or --template.
  """
  source = model_source.find(model, '--model')
  # Scanned layers compile in seconds, others in half a minute and more.
  shape = dataclasses.replace(
      source.model_config(), remat='none', scan_layers=True)
  if shape.scalar:
    raise errors.expected('--model', 'a language model; this is a reward '
                          'model, which answers with a score', model)
  shape.check()
  if template is None:
    asked = prompting.of(source, shape.vocab)
  else:
    asked = prompting.Prompting(
        source.vocabulary(shape.vocab), template).checked('--template')
  built = models.build(shape)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      jax.eval_shape(built.init, jax.random.key(0)))
  params = source.load_params(shape, like, place)
  return asked, streaming.Streamer(
      built, params, settings._replace(eos_ids=asked.vocab.eos_ids), note
  ), shape.max_len


def _arguments() -> argparse.Namespace:
  parser = command.Parser(description=__doc__.partition('\n')[0])
  parser.add_argument(
      '--model', required=True, help="a run's workdir, a Hugging Face folder, "
      'a GGUF file, or smollm2')
  parser.add_argument('--prompt', help='what to answer, and then end; -: '
                      'standard input')
  parser.add_argument('--system', help='the system message')
  parser.add_argument('--template', help='chat, r1_zero, mini, plain or a file;'
                      " left out: the model's own")
  for name, default, kind, text in (
      ('temperature', 0.6, float, '0 takes the most likely token'),
      ('top_p', 0.95, float, 'the nucleus that is sampled among'),
      ('top_k', 0, int, 'how many tokens are sampled among; 0: all'),
      ('max_tokens', 1024, int, 'the longest answer'),
      ('seed', 0, int, 'of the random numbers')):
    parser.add_argument(f'--{name}', default=default, type=kind,
                        help=f'{text}; {default} if left out')
  return parser.parse_args()


def _check(found: argparse.Namespace) -> None:
  """Raises ConfigError for a number that cannot be."""
  for name, wanted, fits in (
      ('temperature', '0, or 1e-4 to 1e4',
       found.temperature == 0 or 1e-4 <= found.temperature <= 1e4),
      ('top_p', 'above 0, at most 1', 0 < found.top_p <= 1),
      ('top_k', 'at least 0', 0 <= found.top_k < 2**31),
      ('max_tokens', '1 to 1,000,000', 0 < found.max_tokens <= 1_000_000),
      ('seed', '0 to 2**32 - 1', 0 <= found.seed < 2**32)):
    if not fits:
      raise errors.expected(f'--{name}', wanted, getattr(found, name))
  for name in ('prompt', 'system', 'template'):
    errors.check_text(f'--{name}', getattr(found, name) or '')


def main() -> None:
  found = _arguments()
  with command.reported():
    _check(found)
    if isinstance(sys.stdin, io.TextIOWrapper):
      sys.stdin.reconfigure(errors='surrogateescape')  # as argv is decoded
    question = found.prompt
    if sys.stdin is None and question in (None, '-'):
      raise errors.expected(
          '--prompt', 'a question, as standard input is closed', question)
    if question == '-':
      question = sys.stdin.read().removesuffix('\n')
      errors.check_text('--prompt', question)
    if question is not None and not question.strip():
      raise errors.expected('--prompt', 'a question', question)
    backend.check_environment()
    backend.check_devices()
    surroundings.keep_programs()
    settings = rollouts.Settings(
        group=1, response_tokens=found.max_tokens, eos_ids=(),
        temperature=found.temperature, chunk=_CACHE, top_k=found.top_k,
        top_p=found.top_p)
    with contextlib.redirect_stdout(sys.stderr):  # what is said of a workdir
      asked, stream, max_len = load(
          workdir_lib.expanded(found.model, '--model'), settings,
          found.template)
    if found.system is not None:
      asked = asked._replace(system=found.system).checked('--system')
    chat = Chat(
        asked, lambda ids, turn, tokens: stream(ids, found.seed, turn, tokens),
        max_len=max_len, max_tokens=found.max_tokens)
    if question is not None:
      sys.exit(0 if chat.answer(question) else 1)
    say(f'{found.model}, template {asked.template}: /help, or ask')
    shown = _ASK if sys.stdin.isatty() else ''
    with contextlib.suppress(ImportError):
      import readline  # pylint: disable=g-import-not-at-top,unused-import
    chat.talk(lambda: input(shown))


if __name__ == '__main__':
  main()
