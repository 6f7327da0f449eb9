"""What a message says, and what a text made of it drops.

A chat template is third-party code that may drop words: R1's own drops the
thinking of every answer, others the system message. A text is compared with
what it was made of:

- An answer that is learned from is in it whole (`not_learned`). Only the white
  space at its ends and around its thinking's tags may be another: some
  templates trim, some put the tags on lines of their own.
- What is only read, as a question is (`first_not_read`), may be written as JSON
  or with other white space; switches, such as /no_think, may be taken out. Of
  an earlier answer the thinking may be left out, as where a model is served.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import json
import re
from typing import Any

from r1jax.data import thinking

Message = Mapping[str, Any]

THOUGHTS = ('reasoning_content', 'reasoning', 'thinking')  # fields of a message
CALLS = ('tool_calls', 'function_call')
_MORE = (*THOUGHTS, *CALLS)

_TAG = re.compile(f'({thinking.THINK}|{thinking.END_OF_THINKING})')
_SPACE = re.compile(r'\s*')
_MAX_TRIES = 64  # places where an answer may begin; a policy may repeat tags
_MAX_SHOWN = 8
_SWITCH = re.compile(r'/\w+')


def _is_text(message: Message) -> bool:
  """Whether all that a message says is its content, a text."""
  return isinstance(message.get('content'), str) and not (
      len(message) > 2 and any(map(message.get, _MORE)))


def pair(messages: Sequence[Message]) -> tuple[str, str] | None:
  """(question, answer) of a conversation of just these two, as text, or None.

  None, too, where they say more than their content.
  """
  if len(messages) == 2:
    asked, said = messages
    if (asked.get('role') == 'user' and said.get('role') == 'assistant'
        and _is_text(asked) and _is_text(said)):
      return asked['content'], said['content']
  return None


def not_learned(text: str, start: int, message: Message) -> tuple[str, int]:
  """What of an assistant's message a text drops from `start` on; where it ends.

  '' and the index after its last word, if it drops nothing.
  """
  end = start
  for words in _texts(message, (*THOUGHTS, 'content')):
    pieces = [piece.strip() for piece in _TAG.split(words) if piece.strip()]
    found = _end_of(pieces, text, end)
    if found is None:
      return _missing(pieces[:_MAX_SHOWN], text, end), end
    end = found
  if _is_listed(text, message):
    return str(message['content']), end
  return _not_called(text[start:], message), end


def first_not_read(text: str, messages: Iterable[Message]
                   ) -> tuple[Message, str] | None:
  """The first message of which a text drops something, and what; or None.

  Where one says what is within another, both must be there: the longest are
  looked for first, and each is taken out.
  """
  said = [(texts(message), message) for message in messages]
  said.sort(key=lambda each: -sum(map(len, each[0])))
  for words, message in said:
    if dropped := _not_read(text, words, message):
      return message, dropped
    for each in words:
      text = text.replace(each, ' ', 1)
  return None


def texts(message: Message) -> list[str]:
  """What a message says that is read, without white space around it."""
  found = map(str.strip, _texts(message, ('content',)))
  if message.get('role') == 'assistant':
    found = (words.rpartition(thinking.END_OF_THINKING)[2].strip()
             for words in found)
  return list(filter(None, found))


def _not_read(text: str, said: Iterable[str], message: Message) -> str:
  """What a text drops of a message whose texts are `said`; '' if nothing."""
  for words in said:
    if not (words in text or _normal(words) in _normal(text)
            or _is_escaped(words, text)):
      return words
  return (str(message['content']) if _is_listed(text, message)
          else _not_called(text, message))


def _texts(message: Message, fields: Iterable[str]) -> Iterator[str]:
  """The texts of a message's fields; content may be a list of parts."""
  for field in fields:
    value = message.get(field)
    if isinstance(value, str):
      yield value
    elif isinstance(value, list | tuple):
      yield from (part['text'] for part in value if isinstance(part, Mapping)
                  and isinstance(part.get('text'), str))


def _end_of(pieces: list[str], text: str, start: int) -> int | None:
  """Where `pieces` end in a text, with only white space between them."""
  if not pieces:
    return start
  begin = text.find(pieces[0], start)
  for _ in range(_MAX_TRIES):
    if begin < 0:
      break
    end = begin + len(pieces[0])
    for piece in pieces[1:]:
      here = _SPACE.match(text, end).end()
      if not text.startswith(piece, here):
        break
      end = here + len(piece)
    else:
      return end
    begin = text.find(pieces[0], begin + 1)
  return None


def _missing(pieces: list[str], text: str, start: int) -> str:
  """The pieces that are not there, as far as they follow one another."""
  there = lambda *part: _end_of(pieces[slice(*part)], text, start) is not None
  first = next(
      (n for n in range(len(pieces)) if not there(n + 1)), len(pieces) - 1)
  last = next((n for n in range(first + 1, len(pieces)) if there(n, None)),
              len(pieces))
  return ' '.join(pieces[first:last])


def _normal(text: str) -> str:
  """A text with single spaces and without switches."""
  return ' '.join(word for word in text.split() if not _SWITCH.fullmatch(word))


def _is_escaped(words: str, text: str) -> bool:
  """Whether a text holds words as JSON writes them."""
  return any(json.dumps(words, ensure_ascii=ascii_only)[1:-1] in text
             for ascii_only in (False, True))


def _is_listed(text: str, message: Message) -> bool:
  """Whether content in parts is written as Python writes a list."""
  content = message.get('content')
  return not isinstance(content, str | None) and str(content) in text


def _not_called(text: str, message: Message) -> str:
  """A name or an argument of a message's tool calls that a text drops."""
  for field in CALLS:
    calls = message.get(field) or ()
    for call in calls if isinstance(calls, list | tuple) else [calls]:
      call = call.get('function', call) if isinstance(call, Mapping) else call
      if isinstance(call, Mapping):
        call = [call.get('name'), call.get('arguments')]
      for words in _strings(call):
        if words not in text and not _is_escaped(words, text):
          return words
  return ''


def _strings(value: Any) -> Iterator[str]:
  """The texts within arguments of a tool, which may be JSON."""
  if isinstance(value, str):
    try:
      inside = json.loads(value)
    except (ValueError, RecursionError):
      inside = value
    if isinstance(inside, str | int | float | None):
      yield value
    else:
      yield from _strings(inside)
  elif isinstance(value, Mapping):
    yield from _strings([*value, *value.values()])
  elif isinstance(value, list | tuple):
    for part in value:
      yield from _strings(part)
