"""Hugging Face tokenizers: a tokenizer.json and the files beside it."""

from collections.abc import Iterable

from r1jax import errors
from r1jax.data.vocabs import base

_NAME = 'tokenizer.json'


def load(path: str, eos: str | None = None) -> 'HuggingFaceVocab':
  """Reads a tokenizer.json, or the folder that holds it. See load_vocab."""
  file = base.existing(path, _NAME)
  return HuggingFaceVocab(
      str(file), file.read_bytes(), base.read_files(file.parent), eos)


class HuggingFaceVocab(base.Vocab):
  """A tokenizer of the library `tokenizers`. See Vocab.

  Special tokens written out in a text become their ids. The BOS token is the
  one that the tokenizer itself puts before a text, or that `add_bos_token` asks
  for; if that is false there is none, as in transformers. Truncation and
  padding set in the file are switched off.
  """

  def __init__(self, path: str, model: bytes, files: base.Files,
               eos: str | None = None):
    """Builds it.

    Args:
      path: where it comes from, for errors.
      model: the content of a tokenizer.json.
      files: the settings files beside it.
      eos: the token that ends a sequence, where the files name none or a wrong
        one.
    """
    import tokenizers  # pylint: disable=g-import-not-at-top
    try:
      self._model = tokenizers.Tokenizer.from_buffer(model)
    except ValueError as e:
      raise errors.ConfigError(
          'vocab.path', 'expected the JSON of a Hugging Face tokenizer in '
          f'{path} ({e}); for a SentencePiece model set config.vocab.kind to '
          "'sentencepiece'") from e
    self._model.no_truncation()
    self._model.no_padding()
    self._model.encode_special_tokens = bool(
        files.tokenizer.get('split_special_tokens'))
    size = max(self._model.get_vocab().values()) + 1
    super().__init__(path, size, files, eos)

  def encode(self, text: str) -> list[int]:
    return self._model.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    return self._model.decode([int(i) for i in ids if i < self.size])

  def token(self, token_id: int) -> str | None:
    return self._model.id_to_token(token_id)

  def _id(self, token: str) -> int | None:
    return self._model.token_to_id(token)

  def _beginning(self) -> int | None:
    if self._files.tokenizer.get('add_bos_token') is False:
      return None
    bare = self.encode('a')
    framed = self._model.encode('a').ids
    one_more = len(framed) > len(bare) and framed[1:len(bare) + 1] == bare
    return framed[0] if one_more else super()._beginning()

  def _model_files(self) -> dict[str, bytes]:
    return {_NAME: self._model.to_str(pretty=True).encode()}
