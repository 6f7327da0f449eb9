"""Conversations in a model's own chat template.

Takes messages, [{'role': 'user', 'content': 'What is 1+1?'}, ...], and returns
the text that the model was trained to continue, exactly as transformers'
`apply_chat_template` renders it. No BOS token is put before that text: most
templates write their own.

A template of the Hub is third-party code: it runs in Jinja's sandbox. One that
asks for today's date (`strftime_now`) gives other prompts tomorrow.
"""

from collections.abc import Mapping, Sequence
import datetime
import functools
import json
import os
import re

from r1jax import errors
from r1jax.data import pieces
from r1jax.data import spoken
from r1jax.data import thinking
from r1jax.data.vocabs import base

Message = spoken.Message
Prompt = str | Sequence[Message]  # a question, or the messages so far


class Rewritten(errors.ConfigError):
  """A template does not hold what it is given, whole and in its place."""


def messages_of(prompt: Prompt, system: str | None = None) -> list[Message]:
  """Returns a prompt's messages, after the system message if there is one."""
  asked = [{'role': 'user', 'content': prompt}] if isinstance(
      prompt, str) else prompt
  first = [] if system is None else [{'role': 'system', 'content': system}]
  return [*first, *asked]


def prompt(vocab: base.Vocab, asked: Prompt, system: str | None = None
           ) -> str:
  """Returns the text that an answer to `asked` continues.

  Raises:
    ConfigError: there is no chat template, or it refuses the messages or drops
      some of what they say.
  """
  messages = messages_of(asked, system)
  text = _asked(vocab, messages)
  for message in messages:  # an answer among them is an example
    if message.get('role') == 'assistant' and (
        dropped := spoken.not_learned(text, 0, message)[0]):
      raise _drops(vocab, messages, message, dropped)
  return text


def render(vocab: base.Vocab, messages: Sequence[Message], *,
           add_generation_prompt: bool = False) -> str:
  """Returns a conversation as text.

  Args:
    vocab: has the template, and the special tokens it may write.
    messages: with 'role', 'content' and other fields that the template uses.
    add_generation_prompt: whether to end where the assistant's answer starts.

  Raises:
    ConfigError: there is no chat template, or it refuses the messages.
  """
  import jinja2  # pylint: disable=g-import-not-at-top
  if vocab.chat_template is None:
    raise errors.ConfigError(
        'data.template', f"'chat' needs a chat template, and {vocab.path} "
        'has none; put chat_template.jinja beside it, use the vocabulary of a '
        'chat model, or set config.data.template to another')
  # As in transformers: a template may test whether a key is there.
  messages = [{key: value for key, value in message.items()
               if value is not None} for message in messages]
  try:
    return compile_template(vocab.chat_template).render(
        messages=messages, tools=None, documents=None,
        add_generation_prompt=add_generation_prompt, **vocab.tokens)
  # What a template's own code can raise: its refusal, or None + 'text'.
  except (jinja2.TemplateError, ArithmeticError, LookupError, RecursionError,
          TypeError, ValueError) as e:
    raise errors.ConfigError(
        'data.template', f'the chat template of {vocab.path} refuses a '
        f'conversation of {_roles(messages)}: {e}') from e


def conversation_pieces(vocab: base.Vocab, messages: Sequence[Message]
                        ) -> list[pieces.Piece]:
  """Returns a conversation in pieces; every second one is the assistant's.

  A turn of the assistant's is all that follows the generation prompt, up to
  and including the end token; the last turn's end token ends the ids. The text
  before the first turn is tokenised as for sampling; each later part on its
  own, as if the conversation continued from the tokens so far.

  Example, ChatML:
      <|im_start|>user⏎Hi<|im_end|>⏎<|im_start|>assistant⏎
      Hello!<|im_end|>

  Raises:
    ConfigError: these are not messages, or the last is not the assistant's;
      there is no chat template, or it refuses the messages, drops some of what
      they say, rewrites earlier turns, or ends a turn without an end token.
  """
  if not (isinstance(messages, Sequence) and messages
          and all(isinstance(message, Mapping) for message in messages)
          and messages[-1].get('role') == 'assistant'):
    raise errors.ConfigError(
        'data.task', "expected messages, {'role': ..., 'content': ...}, "
        f"of which the assistant's is the last; received {messages!s:.80}")
  found, done = [], ''
  for i, message in enumerate(messages):
    if message.get('role') != 'assistant':
      continue
    asked = _asked(vocab, messages[:i])
    turn = _said(vocab, messages[:i], message, asked, done)
    found += [pieces.Piece(asked[len(done):], bool(done)),
              pieces.Piece(turn, True)]
    done = asked + turn
  return found


def question_and_answer(messages: Sequence[Message]) -> tuple[str, str]:
  """Returns (question, answer) of a conversation of just these two, as text.

  Raises:
    ConfigError: it has other messages, or they say more than their content, as
      thinking in a field of its own.
  """
  found = spoken.pair(messages)
  if found is None:
    raise errors.ConfigError(
        'data.template', "expected 'chat' for conversations of more than "
        'a question and an answer in text, such as this one of '
        f'{_roles(messages)}')
  return found


def answer_pieces(vocab: base.Vocab, messages: Sequence[Message],
                  answers: Sequence[str]) -> list[pieces.Piece]:
  """Returns `messages`, as for sampling, and each of several answers to them.

  An answer ends with its end token. Raises as `conversation_pieces` does.
  """
  asked = _asked(vocab, messages)
  return [pieces.Piece(asked), *(pieces.Piece(_said(
      vocab, messages, {'role': 'assistant', 'content': answer}, asked), True)
                                 for answer in answers)]


def _asked(vocab: base.Vocab, messages: Sequence[Message]) -> str:
  """The text that the assistant's turn after `messages` continues."""
  text = render(vocab, messages, add_generation_prompt=True)
  if lost := spoken.first_not_read(text, messages):
    raise _drops(vocab, messages, *lost)
  return text


def _said(vocab: base.Vocab, before: Sequence[Message], message: Message,
          asked: str, done: str = '') -> str:
  """The assistant's turn, `message`, as text.

  `asked` is the text of what is before it, which is to start with `done`.
  """
  messages = [*before, message]
  whole = render(vocab, messages)
  same = asked if whole.startswith(asked) else os.path.commonprefix(
      [asked, whole])
  # The thinking's tag may be put before the answer.
  same = same.rstrip().removesuffix(thinking.THINK)
  dropped, end = spoken.not_learned(whole, len(same), message)
  if dropped:
    raise _drops(vocab, messages, message, dropped)
  if not asked.startswith(done) or not whole.startswith(asked):
    raise Rewritten(
        'data.template', f'the chat template of {vocab.path} rewrites earlier '
        'turns (many drop earlier thinking), or begins this answer with '
        f'{whole[len(same):]!r:.40} where it asks for {asked[len(same):]!r:.40}'
        f', in a conversation of {_roles(messages)}; use conversations with '
        'one assistant turn that begins as it asks, without what it drops')
  calls = any(message.get(name) for name in spoken.CALLS)
  return whole[len(asked):_end_of_turn(
      vocab, whole, len(asked), end, calls)]


def _drops(vocab: base.Vocab, messages: Sequence[Message], message: Message,
           dropped: str) -> Rewritten:
  """The error of a template that drops some of what a message says."""
  return Rewritten(
      'data.template', f'the chat template of {vocab.path} rewrites a '
      f'conversation of {_roles(messages)}: it drops '
      f'{" ".join(dropped.split())!r:.60} of what the {message.get("role")} '
      'says; use another template, or texts without it')


def _end_of_turn(vocab: base.Vocab, whole: str, start: int, end: int,
                 calls: bool) -> int:
  """Where the turn from `start` on, whose answer ends at `end`, ends itself.

  That is behind the first end token after the answer, or behind the last where
  calls of tools follow it; what comes later is the template's.
  """
  tokens = [t for t in map(vocab.token, vocab.eos_ids) if t is not None]
  if not any(t in whole[start:] for t in tokens):
    raise errors.ConfigError(
        'vocab.eos', f'the chat template of {vocab.path} ends a turn with '
        f'{whole[start:][-20:]!r}, which has no end token '
        f'({", ".join(tokens)}); '
        'set config.vocab.eos to the token that ends a turn')
  after = [t for t in tokens if t in whole[end:]]
  if not after:
    raise Rewritten(
        'vocab.eos', f'the chat template of {vocab.path} has no end token '
        f'after {whole[:end][-20:]!r}, the end of the answer; set '
        'config.vocab.eos to the token that ends a turn')
  if calls:
    return max(whole.rindex(t) + len(t) for t in after)
  first, token = min((whole.index(t, end), t) for t in after)
  added = whole[end:first].strip()
  if re.search(r'\w', added):  # a quotation mark may stand there
    raise Rewritten(
        'data.template', f'the chat template of {vocab.path} adds '
        f'{added!r:.40} to the end of an answer, which would be learned; use '
        'another template')
  return first + len(token)


@functools.lru_cache(maxsize=8)
def compile_template(source: str, strict: bool = False):
  """A Jinja template in the sandbox, as transformers compiles a chat template.

  Args:
    source: its text.
    strict: with Jinja's own defaults, but an undefined name is an error.
  """
  import jinja2  # pylint: disable=g-import-not-at-top
  from jinja2 import ext  # pylint: disable=g-import-not-at-top
  from jinja2 import sandbox  # pylint: disable=g-import-not-at-top

  class Generation(ext.Extension):
    """{% generation %}, around the assistant's text: renders that text."""
    tags = {'generation'}

    def parse(self, parser):
      next(parser.stream)
      return parser.parse_statements(['name:endgeneration'], drop_needle=True)

  def raise_exception(message):
    raise jinja2.TemplateError(message)

  def tojson(value, ensure_ascii=False, indent=None, separators=None,
             sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent,
                      separators=separators, sort_keys=sort_keys)

  environment = sandbox.ImmutableSandboxedEnvironment(
      undefined=jinja2.StrictUndefined if strict else jinja2.Undefined,
      trim_blocks=not strict, lstrip_blocks=not strict,
      extensions=[Generation, ext.loopcontrols])
  environment.filters['tojson'] = tojson  # Jinja's own escapes HTML
  environment.globals['raise_exception'] = raise_exception
  environment.globals['strftime_now'] = (
      lambda layout: datetime.datetime.now().strftime(layout))
  template = environment.from_string(source)
  # Every rendering copies them: one dict is copied faster than Jinja's chain.
  template.globals = dict(template.globals)
  return template


def _roles(messages: Sequence[Message]) -> str:
  return ', '.join(str(x.get('role')) for x in messages) or 'no messages'
