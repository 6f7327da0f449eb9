"""Prompt templates: from a question to the text that a model continues.

A template ends where the response starts, without a space: the response's
first token carries it. Besides those here there are CHAT, a model's own chat
template (chat.py), and templates that users write.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
import re
from typing import Any

from r1jax import errors
from r1jax.data import chat
from r1jax.data import pieces
from r1jax.data.vocabs import base


def r1_zero(prompt: str) -> str:
  """DeepSeek-R1-Zero's template, to the letter (arXiv 2501.12948, table 1).

  The full stop after the question is the paper's, even where the question
  ends in a mark of its own.
  """
  return (
      'A conversation between User and Assistant. The user asks a question, '
      'and the Assistant solves it. The assistant first thinks about the '
      'reasoning process in the mind and then provides the user with the '
      'answer. The reasoning process and answer are enclosed within <think> '
      '</think> and <answer> </answer> tags, respectively, i.e., <think> '
      'reasoning process here </think> <answer> answer here </answer>. '
      f'User: {prompt}. Assistant:')


def mini(prompt: str) -> str:
  """A dialogue's bare frame, for a model that knows the format already."""
  return f'User: {prompt}\nAssistant:'


def plain(prompt: str) -> str:
  """The question alone."""
  return prompt


TEMPLATES = {f.__name__: f for f in (r1_zero, mini, plain)}
CHAT = 'chat'

_PLACE = re.compile(r'(?<!\{)\{prompt\}(?!\})')
_FILES = ('.txt', '.jinja', '.j2')

# (prompt, answers) -> the pieces of the prompt and of each answer, with its end
# token; or (prompt, steps of an answer) -> those of each step, without one.
Write = Callable[[chat.Prompt, Sequence[str]], list[pieces.Piece]]
# (prompt, answer) -> the ids of both, the answer's with the end token.
Encode = Callable[[chat.Prompt, str], tuple[list[int], list[int]]]
# (prompt, steps of an answer) -> the ids of the prompt, and of each step.
EncodeSteps = Callable[[chat.Prompt, Sequence[str]],
                       tuple[list[int], list[list[int]]]]
# (question, its record) -> the text that is continued.
Fill = Callable[..., str]


def apply(name: str, prompt: str) -> str:
  """Returns `prompt` in the template `name`; ConfigError if there is none."""
  return load_template(name)(prompt)


def read(name: str) -> tuple[str, bool]:
  """The text of a template, and whether its file's suffix says it is Jinja.

  A key of TEMPLATES, and CHAT, stand for themselves.

  Raises:
    ConfigError: there is no such template.
  """
  if '{' in name or name in (*TEMPLATES, CHAT):
    return name, False
  path = pathlib.Path(name).expanduser()
  if not name.endswith(_FILES) and len(path.parts) < 2:
    errors.check_choice('data.template', name, (*TEMPLATES, CHAT))
  if not path.is_file():
    raise errors.ConfigError('data.template', errors.no_file(path))
  try:
    text = path.read_text(encoding='utf-8').removesuffix('\n')
  except UnicodeDecodeError as problem:
    raise errors.ConfigError('data.template', f'{path}: {problem}') from problem
  return text, path.suffix in ('.jinja', '.j2')


def load_template(name: str) -> Fill:
  """The function (question, record={}) -> text of a template.

  Args:
    name: a key of TEMPLATES; a text with '{prompt}', where the question goes;
      a Jinja template, recognised by '{{', which may use `prompt` and every
      field of the record; or the path of a file with either (.txt, .jinja).

  Raises:
    ConfigError: there is no such template; when it is filled, a field is
      missing.
  """
  if name in TEMPLATES:
    return lambda question, record=None: TEMPLATES[name](question)
  text, jinja = read(name)
  if not jinja and _PLACE.search(text):
    return lambda question, record=None: _PLACE.sub(lambda _: question, text)
  if jinja or '{{' in text:
    return functools.partial(_fill_jinja, name, text)
  raise errors.expected(
      'data.template', "a text with '{prompt}', where the question goes, or a "
      "Jinja template with '{{ prompt }}'", name)


def _fill_jinja(name: str, source: str, question: str,
                record: Mapping[str, Any] | None = None) -> str:
  import jinja2  # pylint: disable=g-import-not-at-top
  record = record or {}
  fields = {**record.get('row', {}), **record, 'prompt': question}
  try:
    return chat.compile_template(source, strict=True).render(fields)
  except (jinja2.TemplateError, TypeError, ValueError) as problem:
    raise errors.ConfigError(
        'data.template', f'{name:.80}: {problem}') from problem


def prompt_function(name: str, vocab: base.Vocab, system: str | None = None,
                    examples: Sequence[tuple[str, str]] = (),
                    instruction: str | None = None) -> Fill:
  """Returns the function that puts a question into a template.

  Args:
    name: see `load_template`; or CHAT for the vocabulary's own.
    vocab: has the chat template.
    system: the system message before the question, which only CHAT has.
    examples: questions with their answers that come before it (few-shot), in
      a chat as earlier turns, else each in the template and on its own line.
    instruction: appended to the question, on its own line.

  Returns:
    (question, record=None) -> the text that a response continues.

  Raises:
    ConfigError: there is no such template, or it has no system message.
  """
  asked = lambda question: instructed(question, instruction)
  if name == CHAT:
    turns = [{'role': role, 'content': text} for pair in examples
             for role, text in zip(('user', 'assistant'), pair)]
    filled = lambda question, record=None: chat.prompt(
        vocab, [*turns, {'role': 'user', 'content': asked(question)}], system)
    filled('?')  # a faulty template is refused before the data is read
    return filled
  fill = load_template(name)
  if system is not None:
    raise errors.expected(
        'data.system', f'None with config.data.template = {name!r} (only '
        f'{CHAT!r} has a system message)', system)
  if not examples and not instruction:
    return fill
  before = ''.join(f'{fill(question)} {answer}\n'
                   for question, answer in examples)
  return lambda question, record=None: before + fill(asked(question), record)


def instructed(question: str, instruction: str | None) -> str:
  """The question with an instruction on its own line, if there is one."""
  return f'{question}\n{instruction}' if instruction else question


def answer_writer(name: str, vocab: base.Vocab, system: str | None = None
                  ) -> Write:
  """Returns what writes a prompt and answers to it as they would be sampled.

  Args:
    name, vocab, system: see `prompt_function`.

  Raises:
    ConfigError: as `prompt_function` does; when called, if the prompt is
      messages and the template is not CHAT.
  """
  fill = prompt_function(name, vocab, system)
  if name != CHAT and 'QUESTION 1' not in fill('QUESTION 1'):
    raise errors.expected(
        'data.template', 'a template that holds the prompt', name)
  begin = () if vocab.bos_id is None else (vocab.bos_id,)
  end = vocab.eos_id,

  def plain(prompt: chat.Prompt, answers: Sequence[str]):
    if not isinstance(prompt, str):
      raise errors.expected('data.template', f'{CHAT!r}, because the prompts '
                            'are conversations', name)
    # The answer's first token carries the space.
    return [pieces.Piece(fill(prompt), False, begin), *[
        pieces.Piece(' ' + answer.strip(), True, (), end)
        for answer in answers]]

  def conversation(prompt: chat.Prompt, answers: Sequence[str]):
    return chat.answer_pieces(vocab, chat.messages_of(prompt, system), answers)

  return conversation if name == CHAT else plain


def step_writer(name: str, vocab: base.Vocab, system: str | None = None,
                separator: str | None = None) -> Write:
  """Returns what writes a prompt and the steps of its answer.

  Args:
    name, vocab, system: see `prompt_function`.
    separator: ends every step, in place of the space around its text; None: a
      line break; '': the steps are written as they are.
  """
  # The text of an answer begins with a space, except in a chat.
  gap = '' if name == CHAT else ' '
  end = '\n' if separator is None else separator
  write = None if name == CHAT else answer_writer(name, vocab, system)

  def written(prompt: chat.Prompt, steps: Sequence[str]):
    asked = write(prompt, ()) if write else [
        pieces.Piece(chat.prompt(vocab, prompt, system))]
    return asked + [
        pieces.Piece(gap + step.strip() + end if end else step, True)
        for step in steps]
  return written


def pair_encoder(name: str, vocab: base.Vocab, system: str | None = None
                 ) -> Encode:
  """Returns the encoder of a prompt and its answer; see `answer_writer`."""
  write = answer_writer(name, vocab, system)

  def encoded(prompt: chat.Prompt, answer: str):
    asked, said = pieces.encode(vocab, write(prompt, [answer]))
    return asked, said
  return encoded


def step_encoder(name: str, vocab: base.Vocab, system: str | None = None,
                 separator: str | None = None) -> EncodeSteps:
  """Returns the encoder of a prompt and its answer's steps; see `step_writer`.
  """
  write = step_writer(name, vocab, system, separator)

  def encoded(prompt: chat.Prompt, steps: Sequence[str]):
    asked, *said = pieces.encode(vocab, write(prompt, steps))
    return asked, said
  return encoded
