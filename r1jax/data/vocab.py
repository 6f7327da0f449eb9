"""Vocabularies: text to token ids and back, without TensorFlow.

One small interface over SentencePiece models and Hugging Face tokenizers. The
padding id may equal the end-of-sequence id, as it does in many released
models, so nothing may tell padding by its id: lengths do.
"""

import importlib.resources
import json
import pathlib
from collections.abc import Iterable
from typing import Any, Protocol

from r1jax import config as config_lib
from r1jax.data import names

_MINI = 'assets/mini.model'


class Vocab(Protocol):
  """What every vocabulary offers."""
  path: str  # of the file it was read from
  size: int  # one more than the largest id
  bos_id: int | None  # begins every prompt and document, where there is one
  eos_id: int
  pad_id: int  # may equal eos_id

  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`, nothing added at either end."""

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of `ids`, special tokens and ids >= size left out."""


class SentencePieceVocab:
  """A SentencePiece model file. See Vocab."""

  def __init__(self, path: str, eos: str | None = None):
    import sentencepiece  # pylint: disable=g-import-not-at-top
    self.path = str(_existing(path))
    self._model = sentencepiece.SentencePieceProcessor()
    try:
      self._model.LoadFromFile(self.path)
    except (OSError, RuntimeError) as e:
      raise config_lib.ConfigError(
          f'config.vocab.path: expected a SentencePiece model, received '
          f'{self.path} ({e}); for a tokenizer.json set config.vocab.kind to '
          "'huggingface'") from e
    self.size = self._model.get_piece_size()
    self.bos_id = None  # a model file does not say whether one is to be added
    self.eos_id = self._model.eos_id() if eos is None else self._id(eos)
    if self.eos_id < 0:
      raise _no_eos(self.path)
    pad_id = self._model.pad_id()
    self.pad_id = self.eos_id if pad_id < 0 else pad_id

  def _id(self, piece: str) -> int:
    found = self._model.piece_to_id(piece)
    return found if self._model.id_to_piece(found) == piece else -1

  def encode(self, text: str) -> list[int]:
    return self._model.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    return self._model.decode([int(i) for i in ids if i < self.size])


class HuggingFaceVocab:
  """A tokenizer.json, or the folder that holds it. See Vocab.

  The end and padding tokens are read from the files beside it, in the order
  tokenizer_config.json, generation_config.json, config.json; of several end
  tokens the first counts. A beginning token is what the tokenizer itself puts
  before a text. Truncation and padding set in the file are switched off.
  """

  def __init__(self, path: str, eos: str | None = None):
    import tokenizers  # pylint: disable=g-import-not-at-top
    file = _existing(path)
    if file.is_dir():
      file = _existing(file / 'tokenizer.json')
    self.path = str(file)
    text = _text(file)
    if 'model' not in _parsed(file, text):
      raise _not_tokenizer(file, "no field 'model'")
    self._model = tokenizers.Tokenizer.from_str(text)
    self._model.no_truncation()
    self._model.no_padding()
    self.size = max(self._model.get_vocab().values()) + 1
    self.bos_id = self._beginning()
    settings = [_settings(file.parent / name) for name in (
        'tokenizer_config.json', 'generation_config.json', 'config.json')]
    found = self._special('eos', settings) if eos is None else (
        self._model.token_to_id(eos))
    if found is None:
      raise _no_eos(self.path)
    self.eos_id = found
    pad_id = self._special('pad', settings)
    self.pad_id = self.eos_id if pad_id is None else pad_id

  def _beginning(self) -> int | None:
    bare = self.encode('a')
    framed = self._model.encode('a').ids
    one_more = len(framed) > len(bare) and framed[1:len(bare) + 1] == bare
    return framed[0] if one_more else None

  def _special(self, role: str, settings: list[dict[str, Any]]) -> int | None:
    """Returns the id that `settings`, the first to speak, give a role."""
    for values in settings:
      token = values.get(f'{role}_token')
      if isinstance(token, dict):
        token = token['content']
      if token is not None:
        return self._model.token_to_id(token)
      found = values.get(f'{role}_token_id')
      if found is not None:
        return found[0] if isinstance(found, list) else found
    return None

  def encode(self, text: str) -> list[int]:
    return self._model.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    return self._model.decode([int(i) for i in ids if i < self.size])


KINDS = {'sentencepiece': SentencePieceVocab, 'huggingface': HuggingFaceVocab}


def load(kind: str, path: str, eos: str | None = None) -> Vocab:
  """Reads a vocabulary.

  Args:
    kind: a key of KINDS.
    path: the file or folder, or 'mini' for the SentencePiece model shipped
      with the package.
    eos: the token that ends a sequence, where the files name none or another.

  Raises:
    ConfigError: names the field of config.vocab that is wrong.
  """
  names.check('config.vocab.kind', kind, KINDS)
  if not path:
    raise config_lib.error(
        'vocab.path', "a file or folder, or 'mini' for the vocabulary shipped",
        path)
  if path == 'mini':
    if kind != 'sentencepiece':
      raise config_lib.error(
          'vocab.kind', "'sentencepiece', the kind of config.vocab.path 'mini'",
          kind)
    path = str(importlib.resources.files(__package__).joinpath(_MINI))
  return KINDS[kind](path, eos)


def _existing(path: str | pathlib.Path) -> pathlib.Path:
  path = pathlib.Path(path)
  if not path.exists():
    raise config_lib.ConfigError(
        f'config.vocab.path: no such file or folder: {path}')
  return path


def _text(file: pathlib.Path) -> str:
  try:
    return file.read_text(encoding='utf-8')
  except UnicodeDecodeError as e:
    raise _not_tokenizer(file, e) from e


def _parsed(file: pathlib.Path, text: str) -> dict[str, Any]:
  try:
    return json.loads(text)
  except json.JSONDecodeError as e:
    raise _not_tokenizer(file, e) from e


def _settings(file: pathlib.Path) -> dict[str, Any]:
  return _parsed(file, _text(file)) if file.exists() else {}


def _not_tokenizer(file: pathlib.Path,
                   reason: object) -> config_lib.ConfigError:
  return config_lib.ConfigError(
      f'config.vocab.path: expected the JSON of a Hugging Face tokenizer in '
      f'{file} ({reason}); for a SentencePiece model set config.vocab.kind to '
      "'sentencepiece'")


def _no_eos(path: str) -> config_lib.ConfigError:
  return config_lib.ConfigError(
      f'config.vocab.eos: {path} holds no such end-of-sequence token, or names '
      'none; set config.vocab.eos to one of its tokens')
