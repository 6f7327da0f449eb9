"""SentencePiece vocabularies: a model file and the settings files beside it."""

from collections.abc import Iterable
import os
import re
from typing import Any

import numpy as np

from r1jax import errors
from r1jax.data import ragged
from r1jax.data.vocabs import base
from r1jax.data.vocabs import convert

NAME = 'tokenizer.model'

_LONG = 128  # characters of a text, about 32 ids


def load(path: str, eos: str | None = None) -> 'SentencePieceVocab':
  """Reads a model file, or a folder's tokenizer.model. See load_vocab."""
  file = base.existing(path, NAME)
  return SentencePieceVocab(
      str(file), file.read_bytes(), base.read_files(file.parent), eos)


class SentencePieceVocab(base.Vocab):
  """A SentencePiece model. See Vocab.

  Control pieces written out in a text stay text if there is only a model file,
  as in SentencePiece. With a tokenizer_config.json beside it they become their
  ids, as in transformers and as chat templates need, unless it sets
  `split_special_tokens`.
  """

  _may_lack_added = True

  def __init__(self, path: str, model: bytes, files: base.Files,
               eos: str | None = None):
    """Builds it.

    Args:
      path: where it comes from, for errors.
      model: the content of a model file.
      files: the settings files beside it.
      eos: the token that ends a sequence, where the files name none or a wrong
        one.
    """
    import sentencepiece  # pylint: disable=g-import-not-at-top
    self._bytes = model
    self._model = sentencepiece.SentencePieceProcessor()
    try:
      self._model.LoadFromSerializedProto(model)
    except RuntimeError as e:
      raise errors.ConfigError(
          'vocab.path', f'expected a SentencePiece model, received {path} '
          f"({e}); for a tokenizer.json set config.vocab.kind to 'huggingface'"
      ) from e
    size = self._model.get_piece_size()
    special = [self._model.id_to_piece(i) for i in range(size)
               if self._model.is_control(i) or self._model.is_unknown(i)]
    # The group makes re.split keep what it splits at, at odd indices.
    self._special = re.compile(
        f'({"|".join(map(re.escape, sorted(special, key=len, reverse=True)))})')
    split = files.tokenizer.get('split_special_tokens')
    self._bare = not files.tokenizer if split is None else split
    own = {role: self._model.id_to_piece(i) for role, i in (
        ('eos_token', self._model.eos_id()), ('pad_token', self._model.pad_id())
    ) if i >= 0 and files.tokenizer.get(role) is None}
    super().__init__(path, size, files._replace(
        tokenizer={**files.tokenizer, **own,
                   'split_special_tokens': self._bare}), eos)

  def encode(self, text: str) -> list[int]:
    if self._bare:
      return self._model.encode(text)
    ids = []
    for i, part in enumerate(self._special.split(text)):
      ids += [self._id(part)] if i % 2 else self._model.encode(part)
    return ids

  def encode_all(self, texts: list[str]) -> ragged.Ragged:
    if self._bare:
      return self._encode_bare(texts)
    parts = [self._special.split(text) for text in texts]
    between = self._encode_bare([x for each in parts for x in each[::2]])
    count = np.array([len(each) // 2 for each in parts], int)
    after = np.cumsum(count + 1)  # of those between, up to the end of each text
    return ragged.Ragged(
        np.insert(between.values, np.delete(between.end[1:], after - 1),
                  [self._id(x) for each in parts for x in each[1::2]]),
        np.concatenate([[0], between.end[after] + np.cumsum(count)]))

  def _encode_bare(self, texts: list[str]) -> ragged.Ragged:
    # An array takes as long to make as a list of about 32 integers.
    kind = 'numpy' if sum(map(len, texts)) > _LONG * len(texts) else int
    ids = self._model.encode(
        texts, num_threads=os.cpu_count(), return_type=kind)
    return ragged.joined(ids)

  def decode(self, ids: Iterable[int]) -> str:
    return self._model.decode([int(i) for i in ids if i < self.size])

  def token(self, token_id: int) -> str | None:
    return self._model.id_to_piece(token_id) if token_id < self.size else None

  def _id(self, token: str) -> int | None:
    found = self._model.piece_to_id(token)
    return found if self._model.id_to_piece(found) == token else None

  def _rules(self) -> Any:
    return self._bytes, self._bare

  def _model_files(self) -> dict[str, bytes]:
    bos = None if self.bos_id is None else self.token(self.bos_id)
    try:
      converted = convert.sentencepiece(self._bytes, bos)
    except ValueError as e:
      raise errors.ConfigError(
          'vocab.path', f'{self.path} cannot be saved: {e}') from e
    return {NAME: self._bytes, 'tokenizer.json': converted}
