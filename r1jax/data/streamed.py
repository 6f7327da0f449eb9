"""A response that is read while it is sampled: its text, and its thinking."""

from collections.abc import Iterable, Iterator

from r1jax.data import thinking
from r1jax.data.vocabs import base

_REPLACED = '\ufffd'  # what stands for bytes that are no character
_MOST_BYTES = 3  # of a character whose last byte is missing


class Text:
  """The text of a response's tokens, as far as its characters are whole.

  A token may end within a character: its bytes wait for those that follow.

  Example: of the bytes of 'é', C3 and A9, as a token each, `add([C3])` is '',
  and `add([A9])` is 'é'.
  """

  def __init__(self, vocab: base.Vocab):
    self._vocab, self._ids, self._given = vocab, [], 0

  def add(self, ids: Iterable[int]) -> str:
    """The characters that are whole with these tokens, and were not before."""
    self._ids += ids
    return self._next(_MOST_BYTES)

  def rest(self) -> str:
    """What stands for the bytes that still wait, as the response has ended."""
    return self._next(0)

  def _next(self, waiting: int) -> str:
    text = self._vocab.decode(self._ids)
    broken = len(text) - len(text.rstrip(_REPLACED))
    end = max(self._given, len(text) - min(broken, waiting))
    new, self._given = text[self._given:end], end
    return new


class Parts:
  """Tells the thinking of a response from its answer, as the text comes.

  Example: of '<think>', ' 1+1', ' </th', 'ink> 2' the parts are (True,
  '<think>'), (True, ' 1+1'), (True, ' '), (True, '</think>'), (False, ' 2').
  """

  def __init__(self, opened: bool):
    """`opened`: whether the prompt has opened the thinking."""
    self.thinks = opened  # at the end of what has been read
    self._held = ''

  def add(self, text: str) -> Iterator[tuple[bool, str]]:
    """Yields (whether this is thinking, text); tags are part of the thinking.

    What may be the beginning of a tag waits for what follows.
    """
    text = self._held + text
    while True:
      tag = thinking.END_OF_THINKING if self.thinks else thinking.THINK
      before, found, after = text.partition(tag)
      if not found:
        break
      yield from self._part(before)
      yield True, tag
      self.thinks, text = not self.thinks, after
    held = next(n for n in range(len(tag) - 1, -1, -1)
                if text.endswith(tag[:n]))
    self._held = text[len(text) - held:]
    yield from self._part(text[:len(text) - held])

  def rest(self) -> Iterator[tuple[bool, str]]:
    """Yields what still waits, as the response has ended."""
    held, self._held = self._held, ''
    yield from self._part(held)

  def _part(self, text: str) -> Iterator[tuple[bool, str]]:
    if text:
      yield self.thinks, text
