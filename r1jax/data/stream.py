"""Text that grows with its tokens.

A token may end in the middle of a character, and decoding alone puts U+FFFD
there. A stream holds such bytes back until the tokens that complete them come.
"""

from collections.abc import Iterable

from r1jax.data import vocab_base

_UNFINISHED = '\ufffd'  # also what decoding makes of bytes that are no text


class Stream:
  """Decodes ids as they come: all texts joined are vocab.decode(all ids).

  Only the ids of the last text and the unfinished ones after it are decoded
  again: the former because many vocabularies drop the space before the first.
  """

  def __init__(self, vocab: vocab_base.Vocab):
    self._vocab = vocab
    self._ids = []
    self._old = 0  # as many of them are the last text's
    self._text = ''  # what of the ids' text is out

  def put(self, ids: Iterable[int]) -> str:
    """Returns the text that `ids` complete."""
    return ''.join(map(self._one, ids))

  def end(self) -> str:
    """Returns what is left, U+FFFD for an unfinished character."""
    text, new = self._vocab.decode(self._ids), self._ids[self._old:]
    rest = (text[len(self._text):] if text.startswith(self._text)
            else self._vocab.decode(new))
    self.__init__(self._vocab)
    return rest

  def _one(self, token: int) -> str:
    self._ids.append(token)
    text = self._vocab.decode(self._ids)
    whole = text.rstrip(_UNFINISHED)
    if not whole.startswith(self._text):
      # Some decoders respell a finished character beside unfinished bytes.
      if whole != text:
        return ''
      whole = text = self._text + self._vocab.decode(self._ids[self._old:])
    new = whole[len(self._text):]
    self._text = whole
    if new and whole == text:
      last = self._ids[self._old:]
      alone = self._vocab.decode(last)
      if alone:  # else they say nothing of how a text goes on
        self._ids, self._old, self._text = last, len(last), alone
      else:
        self._old = len(self._ids)
    return new
