"""What every vocabulary offers: text to token ids and back."""

import abc
from collections.abc import Iterable
import pathlib

from r1jax import config as config_lib
from r1jax.data import vocab_files


class Vocab(abc.ABC):
  """A tokenizer with the special tokens of its model.

  Attributes:
    path: of the file it was read from.
    size: one more than the largest id.
    bos_id: begins every prompt and document that no chat template wrote, None
      where nothing does.
    eos_ids: each of them ends a response.
    eos_id: the first of them; ends a document.
    pad_id: may equal eos_id, so lengths tell padding, ids do not.
    tokens: special tokens as text, by the names that chat templates use for
      them: {'eos_token': '</s>', ...}.
    chat_template: Jinja source, see chat.py; None if the model has none.
    model_file: of a SentencePiece model that by itself has the same ids, for
      libraries that read such files; None if there is none.
  """

  model_file: str | None = None

  def __init__(self, path: str, size: int, files: vocab_files.Files,
               eos: str | None):
    self.path, self.size, self._files = path, size, files
    ends = [self._id(eos)] if eos is not None else files.ids('eos', self._id)
    if not ends or None in ends:
      raise config_lib.ConfigError(
          f'config.vocab.eos: {path} holds no such end-of-sequence token, or '
          'names none; set config.vocab.eos to one of its tokens')
    self.eos_ids = tuple(ends)
    self.eos_id = self.eos_ids[0]
    self.bos_id = self._beginning()
    pad_id = next(
        (i for i in files.ids('pad', self._id)
         if i is not None and i >= 0), None)
    self.pad_id = self.eos_id if pad_id is None else pad_id
    self.tokens = files.tokens()
    for role, i in (('bos', self.bos_id), ('eos', self.eos_id),
                    ('pad', pad_id)):
      token = None if i is None else self.token(i)
      if token is not None:
        self.tokens[f'{role}_token'] = token
    self.chat_template = files.chat_template

  @abc.abstractmethod
  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`, nothing added at either end."""

  @abc.abstractmethod
  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of `ids`, special tokens and ids >= size left out."""

  @abc.abstractmethod
  def token(self, token_id: int) -> str | None:
    """Returns one token as its file writes it, None if there is none."""

  def save(self, folder: str | pathlib.Path) -> None:
    """Writes the files by which we and transformers read it again."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in self._model_files().items():
      (folder / name).write_bytes(content)
    tokenizer = {'tokenizer_class': 'PreTrainedTokenizerFast',
                 **self._files.tokenizer, **self.tokens}
    generation = {**self._files.generation,
                  'eos_token_id': list(self.eos_ids)}
    if 'pad_token' in self.tokens:  # else it is the end token, unsaid
      generation['pad_token_id'] = self.pad_id
    vocab_files.write(folder, vocab_files.Files(
        tokenizer, generation, {}, self.chat_template))

  @abc.abstractmethod
  def _id(self, token: str) -> int | None:
    """The inverse of `token`."""

  def _beginning(self) -> int | None:
    """The id that is to be put before a text."""
    if not self._files.tokenizer.get('add_bos_token'):
      return None
    return next(iter(self._files.ids('bos', self._id)), None)

  @abc.abstractmethod
  def _model_files(self) -> dict[str, bytes]:
    """The tokenizer itself, by file name."""
