"""A conversation: what is asked, shown, remembered, stopped and refused."""

import io
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys

import pytest

from r1jax import chat
from r1jax import errors
from r1jax import flags
from r1jax.data import vocabs
from r1jax.stages import prompting

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_LEN = 200
DIM, PLAIN = '\x1b[2m', '\x1b[22m'


class Model:
  """Answers with texts, some tokens at a time; notes what it was asked."""

  def __init__(self, vocab, *answers, end=True, at_once=2):
    self.vocab, self.answers, self.end = vocab, list(answers), end
    self.at_once, self.prompts, self.given = at_once, [], 0

  def __call__(self, ids, turn, tokens):
    self.prompts.append((self.vocab.decode(ids), turn))
    answer = self.answers.pop(0)
    drawn = self.vocab.encode(answer) + [self.vocab.eos_id] * self.end
    for start in range(0, min(len(drawn), tokens), self.at_once):
      self.given += self.at_once
      yield drawn[start:min(start + self.at_once, tokens)]


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Talk:
  """A chat with a `Model`, and all that it wrote."""

  def __init__(self, *answers, template='mini', out=None, max_tokens=100,
               **model):
    vocab = vocabs.load_vocab('sentencepiece', 'mini')
    self.model = Model(vocab, *answers, **model)
    self.out, self.notes = out or io.StringIO(), []
    self.chat = chat.Chat(
        prompting.Prompting(vocab, template), self.model, max_len=MAX_LEN,
        max_tokens=max_tokens, out=self.out, note=self.notes.append)

  def lines(self, *lines):
    """Types the lines; one of an exception is raised."""
    rest = iter(lines)

    def read():
      line = next(rest, EOFError())
      if isinstance(line, BaseException):
        raise line
      return line

    self.chat.talk(read)
    assert next(rest, None) is None
    return self.out.getvalue()


def test_questions_follow_what_was_said_without_its_thinking():
  talk = Talk(' <think> 1 + 1 </think> <answer> 2 </answer>', ' 4')
  assert talk.lines('1 + 1 = ?', '', '2 + 2 = ?') == (
      '<think> 1 + 1 </think> <answer> 2 </answer>\n4\n')
  assert talk.model.prompts == [
      ('User: 1 + 1 = ?\nAssistant:', 0),
      ('User: 1 + 1 = ?\nAssistant: <answer> 2 </answer>\n'
       'User: 2 + 2 = ?\nAssistant:', 1)]
  assert re.fullmatch(r'\d+ tokens, the first after [\d.]+ s, [\d.]+ a second',
                      talk.notes[0])


def test_a_new_conversation_forgets():
  talk = Talk(' 2', ' 4', ' 6')
  talk.lines('1 + 1', '/reset', '2 + 2')
  assert talk.model.prompts[1] == ('User: 2 + 2\nAssistant:', 1)


def test_an_answer_that_was_never_given_is_forgotten():
  talk = Talk(' <think> 1 + 1', ' 4', max_tokens=6, end=False)
  talk.lines('1 + 1', '2 + 2')
  assert talk.model.prompts[1][0] == 'User: 2 + 2\nAssistant:'
  assert 'no answer: this turn is not part of the conversation' in talk.notes
  assert talk.notes[1].endswith('; cut at --max_tokens=6')


@pytest.mark.parametrize('environment, dimmed', [
    (dict(TERM='xterm'), True), (dict(TERM='dumb'), False),
    (dict(TERM='xterm', NO_COLOR='1'), False),
    (dict(TERM='xterm', NO_COLOR=''), True)])
def test_thinking_is_dimmed_on_a_terminal(monkeypatch, environment, dimmed):
  monkeypatch.delenv('NO_COLOR', raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  talk = Talk(' <think> 1 </think> 2', out=Terminal(), at_once=1)
  shown = talk.lines('1 + 1')
  pieces = re.split(f'({re.escape(DIM)}.*?{re.escape(PLAIN)})', shown)
  thought = ''.join(pieces[1::2]).replace(DIM, '').replace(PLAIN, '')
  assert thought == ('<think> 1 </think>' if dimmed else '')
  assert ''.join(pieces[::2]) == (
      ' 2\n' if dimmed else '<think> 1 </think> 2\n')


def test_thinking_that_the_template_opens_is_thinking():
  talk = Talk(' 1 + 1 </think> 2', ' 3', template='{prompt}<think>',
              out=Terminal())
  shown = talk.lines('a', 'b')
  assert shown.startswith(f'{DIM}<think>\n{PLAIN}{DIM}')
  assert f'</think>{PLAIN} 2\n' in shown
  assert talk.model.prompts[1][0] == 'a<think> 2\nb<think>'


def test_a_model_cannot_move_the_cursor():
  talk = Talk('x', out=Terminal())
  talk.chat._show([(False, 'a\x1b[2Jb\tc\n👩\u200d👧')])
  assert talk.out.getvalue() == 'a\\x1b[2Jb\tc\n👩\u200d👧'
  plain = Talk('x')
  plain.chat._show([(False, '\x1b[2J')])
  assert plain.out.getvalue() == '\x1b[2J'


def test_nor_can_what_is_said_of_it(capsys):
  chat.say('a \x1b[2Jtemplate')
  assert capsys.readouterr().err == 'a \\x1b[2Jtemplate\n'
  with pytest.raises(SystemExit):
    flags.fail(errors.ConfigError('--model', 'a\x1b[2Jb\nc'))
  assert capsys.readouterr().err == 'error: --model: a\\x1b[2Jb c\n'


def test_a_line_that_is_no_text_is_refused_and_the_talk_goes_on():
  talk = Talk(' 4')
  assert talk.lines('\udcff hi', '2 + 2') == '4\n'
  assert talk.notes[0].startswith('expected text in UTF-8')
  assert "b'\\xff hi'" in talk.notes[0]


def test_control_c_stops_the_answer_and_not_the_program():
  talk = Talk(' 1 2 3 4 5 6 7 8 9', ' 4', at_once=1)
  show, shown = talk.chat._show, []

  def interrupted(parts):
    shown.append(list(parts))
    show(shown[-1])
    if len(shown) == 3:
      os.kill(os.getpid(), signal.SIGINT)

  talk.chat._show = interrupted
  before = signal.getsignal(signal.SIGINT)
  talk.lines('count', KeyboardInterrupt(), 'go on')
  assert signal.getsignal(signal.SIGINT) is before
  first, second = talk.out.getvalue().splitlines()
  assert 0 < len(first) < 12 and second == '4'
  assert talk.model.prompts[1][0].startswith(
      f'User: count\nAssistant: {first.strip()}\nUser: go on')
  assert talk.notes[0].endswith('; stopped')
  assert any('Ctrl-D ends' in note for note in talk.notes)


def test_control_c_beside_an_answer_does_not_end_the_program(monkeypatch):
  """Before its first token, where it stops it; and after its last."""
  talk, pressed = Talk(' 1 2 3 4 5 6 7 8 9', ' 4', at_once=3), []

  def pressed_in(owner, name):
    usual = getattr(owner, name)

    def pressing(*args):
      if name not in pressed:
        pressed.append(name)
        os.kill(os.getpid(), signal.SIGINT)
      return usual(*args)

    monkeypatch.setattr(owner, name, pressing)

  pressed_in(talk.chat, '_sample')
  pressed_in(talk.chat, '_remember')
  first, second = talk.lines('count', 'go on').splitlines()
  assert pressed == ['_sample', '_remember']
  assert 0 < len(first) < 9 and second == '4'
  assert talk.notes[0].endswith('; stopped')


def test_a_conversation_that_is_too_long_is_said_in_one_line():
  talk = Talk(' ' + '7 ' * 40, ' 4')
  talk.lines('1 ' * 60, '2 ' * 60, '/reset', 'short')
  assert len(talk.model.prompts) == 2
  note, = (note for note in talk.notes if 'begins anew' in note)
  assert re.fullmatch(r'the conversation has \d+ tokens, as many as the model '
                      r'reads \(200\) or more: /reset begins anew', note)


def test_an_answer_ends_where_the_model_can_read_no_more():
  talk = Talk('7 ' * 300, end=False, max_tokens=500)
  asked = '1 ' * 80
  talk.lines(asked)
  prompt = talk.chat.asked.tokens(talk.chat.asked.text(asked.strip()))
  assert talk.notes[0].startswith(f'{MAX_LEN - len(prompt)} tokens')
  assert talk.notes[0].endswith('; cut at the 200 tokens that the model reads')


def test_commands():
  talk = Talk(' x', ' y')
  talk.lines('/help', '/help me', '/nonsense', '/system Be brief.',
             '//slash', '/system', '/quit', )
  assert talk.notes[0] == talk.notes[1] == chat.HELP
  assert talk.notes[2].startswith('/nonsense is none of /reset')
  assert 'None with config.data.template' in talk.notes[3]
  assert talk.model.prompts == [('User: /slash\nAssistant:', 0)]
  assert talk.notes[-1] == 'there is no system message'
  assert talk.chat.command('/quit') is False


def test_a_system_message_is_set_and_removed(tmp_path):
  vocab = vocabs.load_vocab('sentencepiece', 'mini')
  vocab.chat_template = ("{% for m in messages %}{{ m['role'] }}: "
                         "{{ m['content'] }}\n{% endfor %}")
  talk = Talk(' a', ' b', template='chat')
  talk.chat.asked = prompting.Prompting(vocab, 'chat')
  talk.lines('/system Be brief.', 'x', '/system', 'y')
  assert [text for text, _ in talk.model.prompts] == [
      'system: Be brief.\nuser: x\n',
      'user: x\nassistant: a\nuser: y\n']


def _main(monkeypatch, capsys, *args, stdin=''):
  """(status, standard output, standard error) of the command.

  `stdin` is the text of its standard input; None: that is closed.
  """
  monkeypatch.setattr(sys, 'argv', ['chat', *args])
  monkeypatch.setattr(
      sys, 'stdin', None if stdin is None else io.TextIOWrapper(io.BytesIO(
          stdin.encode('utf-8', 'surrogateescape')), 'utf-8'))
  monkeypatch.setattr(chat.backend, 'check_environment', lambda: None)  # forks
  before, status = signal.getsignal(signal.SIGINT), 0
  try:
    chat.main()
  except SystemExit as end:
    status = end.code
  finally:
    signal.signal(signal.SIGINT, before)
  return status, *capsys.readouterr()


BRIEF = ('--max_tokens=8', '--temperature=0')


def test_one_answer_alone_is_on_standard_output(monkeypatch, capsys):
  """A question on the command line, from standard input, and in a chat."""
  asked = '--prompt=Compute 3 + 4 * 2.'
  status, out, err = _main(monkeypatch, capsys, '--model=mini', asked, *BRIEF)
  assert status == 0 and len(out.splitlines()) == 1 and len(out) > 3
  assert 'tokens, the first after' in err
  assert _main(monkeypatch, capsys, '--model=mini', '--prompt=-', *BRIEF,
               stdin=asked.partition('=')[2] + '\n')[:2] == (0, out)
  status, talked, err = _main(
      monkeypatch, capsys, '--model=mini', *BRIEF,
      stdin=f'{asked.partition("=")[2]}\n')
  assert (status, talked) == (0, out)
  assert 'mini, template mini: /help, or ask' in err


@pytest.mark.parametrize('args, said', [
    ([], 'the following arguments are required: --model'),
    (['--model=mini', '--modle=x'], 'unrecognized arguments: --modle=x'),
    (['--model=nowhere'], '--model: .*which is not here'),
    (['--model=/no/where'], '--model: /no/where is not there'),
    (['--model=mini', '--temperature=hot'], 'argument --temperature: invalid'),
    (['--model=mini', '--temperature=-1'], '--temperature: expected 0, or'),
    (['--model=mini', '--temperature=nan'], '--temperature: expected 0, or'),
    (['--model=mini', '--top_p=0'], '--top_p: expected above 0'),
    (['--model=mini', '--top_k=-1'], '--top_k: expected at least 0'),
    (['--model=mini', '--max_tokens=0'], '--max_tokens: expected 1 to'),
    (['--model=mini', '--seed=4294967296'], '--seed: expected 0 to'),
    (['--model=mini', '--prompt= '], '--prompt: expected a question'),
    (['--model=mini', '--system=Be brief.'], '--system: .*None with'),
    (['--model=mini', '--template=caht'], '--template: .*did you mean chat'),
    (['--model=mini', '--template=chat'], '--template: .*has none')])
def test_a_wrong_command_is_one_line_and_status_2(
    monkeypatch, capsys, args, said):
  # Nothing is compiled before it is refused.
  monkeypatch.setattr(
      chat.streaming, 'Streamer', lambda *_: lambda *_: pytest.fail())
  status, out, err = _main(monkeypatch, capsys, *args)
  line, = err.splitlines()
  assert status == 2 and not out and re.match(f'error: {said}', line), line


@pytest.mark.parametrize('stdin, said', [
    ('\udcff hi\n', "--prompt: expected text in UTF-8.*'.xff hi'"),
    ('\n', "--prompt: expected a question, received ''")])
def test_what_is_no_question_on_standard_input_is_refused(
    monkeypatch, capsys, stdin, said):
  status, out, err = _main(
      monkeypatch, capsys, '--model=mini', '--prompt=-', stdin=stdin)
  line, = err.splitlines()
  assert status == 2 and not out and re.match(f'error: {said}', line), line


@pytest.mark.parametrize('args', [[], ['--prompt=-']], ids=str)
def test_closed_standard_input_is_said_in_one_line(monkeypatch, capsys, args):
  assert _main(monkeypatch, capsys, '--model=mini', *args, stdin=None) == (
      2, '', 'error: --prompt: expected a question, as standard input is '
      f"closed, received {'-' if args else None!r}\n")


def test_a_question_needs_no_standard_input(monkeypatch, capsys):
  status, out, _ = _main(
      monkeypatch, capsys, '--model=mini', '--prompt=1 + 1', *BRIEF, stdin=None)
  assert status == 0 and out


IN_TERMINAL = '''
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # its Ctrl-C is this program's
runpy.run_module('r1jax.chat', run_name='__main__', alter_sys=True)
'''


def test_in_a_terminal():
  ours, theirs = pty.openpty()
  with subprocess.Popen(
      [sys.executable, '-c', IN_TERMINAL, '--model=mini', *BRIEF], cwd=ROOT,
      stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
      env=os.environ | {'TERM': 'xterm', 'NO_COLOR': ''}) as process:
    os.close(theirs)
    shown, read = b'', 0

    def until(words, press=b'', seconds=60):
      """Reads on to the words; presses a key, up to thrice while it is silent.
      """
      nonlocal shown, read
      for _ in range(3 if press else 1):
        os.write(ours, press)
        while (found := shown.find(words, read)) < 0:
          if not select.select([ours], [], [], seconds)[0]:
            break
          shown += os.read(ours, 4096)
        else:
          read = found + len(words)
          return
      process.kill()
      pytest.fail(f'it is silent after {shown}')

    until(b'\n> ')
    os.write(ours, b'Compute 3 + 4 * 2.\n')
    until(b'\n> ')
    # Python's readline looks for signals where its select() was interrupted,
    # and at the end of a line: one between the prompt and select() has to wait
    # for the next.
    until(b'Ctrl-D ends', press=b'\x03', seconds=5)  # Ctrl-C
    until(b'\n> ')
    os.write(ours, b'\x04')  # Ctrl-D
    assert process.wait(60) == 0
  os.close(ours)
  assert f'{DIM}8 tokens, the first after'.encode() in shown
  assert b'Traceback' not in shown
