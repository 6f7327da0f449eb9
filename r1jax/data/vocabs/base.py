"""The interface of vocabularies: text to token ids and back."""

import abc
from collections.abc import Callable, Iterable
import json
import pathlib
from typing import Any, NamedTuple

from r1jax import errors

ROLES = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')

_TEMPLATE = 'chat_template.jinja'
_NAMES = ('tokenizer_config.json', 'generation_config.json', 'config.json')


class Files(NamedTuple):
  """The settings files beside a tokenizer, or settings in their form."""
  tokenizer: dict[str, Any]  # tokenizer_config.json, without its template
  generation: dict[str, Any]  # generation_config.json
  model: dict[str, Any]  # config.json
  chat_template: str | None

  def tokens(self) -> dict[str, str]:
    """Special tokens by the names templates use: {'eos_token': '</s>'}."""
    by_role = {f'{role}_token': _content(self.tokenizer.get(f'{role}_token'))
               for role in ROLES}
    return {name: token for name, token in by_role.items() if token is not None}

  def ids(self, role: str,
          token_id: Callable[[str], int | None]) -> list[int | None]:
    """The ids of a role, the tokenizer's first; None for an unknown token."""
    ids = [i for values in (self.tokenizer, self.generation)
             for i in _named(role, values, token_id)]
    return list(dict.fromkeys(ids or _named(role, self.model, token_id)))


def read_files(folder: pathlib.Path) -> Files:
  """Reads those that exist; ConfigError for one that is not a JSON object."""
  tokenizer, generation, model = (_settings(folder / name) for name in _NAMES)
  template = tokenizer.pop('chat_template', None)
  if isinstance(template, list):  # several, by name
    template = {t['name']: t['template'] for t in template}.get('default')
  if (folder / _TEMPLATE).exists():
    template = (folder / _TEMPLATE).read_text('utf-8')
  return Files(tokenizer, generation, model, template)


def write_files(folder: pathlib.Path, files: Files) -> None:
  """Writes what `read_files` reads, except config.json, the model's file."""
  for name, values in zip(_NAMES[:2], files[:2]):
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / name).write_text(text + '\n', 'utf-8')
  if files.chat_template is not None:
    (folder / _TEMPLATE).write_text(files.chat_template, 'utf-8')


def existing(path: str | pathlib.Path, name: str) -> pathlib.Path:
  """The file `path`, or `name` in the folder `path`."""
  path = pathlib.Path(path)
  if path.is_dir():
    path /= name
  if not path.exists():
    raise errors.ConfigError(
        'vocab.path', f'no such file or folder: {path}')
  return path


def _content(token: Any) -> str | None:
  return token['content'] if isinstance(token, dict) else token


def _named(role: str, values: dict[str, Any],
           token_id: Callable[[str], int | None]) -> list[int | None]:
  token = _content(values.get(f'{role}_token'))
  if token is not None:
    return [token_id(token)]
  ids = values.get(f'{role}_token_id')
  if ids is None:
    return []
  return ids if isinstance(ids, list) else [ids]


def _settings(file: pathlib.Path) -> dict[str, Any]:
  if not file.exists():
    return {}
  try:
    values = json.loads(file.read_text('utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as e:
    raise _no_object(file, e) from e
  if not isinstance(values, dict):
    raise _no_object(file, type(values).__name__)
  return values


def _no_object(file: pathlib.Path, reason: object) -> errors.ConfigError:
  return errors.ConfigError(
      'vocab.path', f'expected a JSON object in {file} ({reason})')


class Vocab(abc.ABC):
  """A tokenizer with the special tokens of its model.

  Attributes:
    path: of the file it was read from.
    size: one more than the largest id.
    bos_id: starts every prompt and document that no chat template wrote; None
      if there is none.
    eos_ids: each of them ends a response.
    eos_id: the first of them; ends a document.
    pad_id: may equal eos_id, so padding is known by lengths, never by ids.
    tokens: special tokens as text, by the names that chat templates use for
      them: {'eos_token': '</s>', ...}.
    chat_template: Jinja source, see chat.py; None if the model has none.
    model_file: a SentencePiece model file that alone gives the same ids, for
      libraries that read such files; None if there is none.
  """

  model_file: str | None = None

  def __init__(self, path: str, size: int, files: Files,
               eos: str | None):
    self.path, self.size, self._files = path, size, files
    ends = [self._id(eos)] if eos is not None else files.ids('eos', self._id)
    if not ends or None in ends:
      raise errors.ConfigError(
          'vocab.eos', f'{path} holds no such end-of-sequence token, or '
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
    """Writes the files from which r1jax and transformers load it again."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in self._model_files().items():
      (folder / name).write_bytes(content)
    tokenizer = {'tokenizer_class': 'PreTrainedTokenizerFast',
                 **self._files.tokenizer, **self.tokens}
    generation = {**self._files.generation,
                  'eos_token_id': list(self.eos_ids)}
    if 'pad_token' in self.tokens:  # else it is the end token by default
      generation['pad_token_id'] = self.pad_id
    write_files(folder, Files(
        tokenizer, generation, {}, self.chat_template))

  @abc.abstractmethod
  def _id(self, token: str) -> int | None:
    """The inverse of `token`."""

  def _beginning(self) -> int | None:
    """The id to put before a text, None for none."""
    if not self._files.tokenizer.get('add_bos_token'):
      return None
    return next(iter(self._files.ids('bos', self._id)), None)

  @abc.abstractmethod
  def _model_files(self) -> dict[str, bytes]:
    """The tokenizer itself, by file name."""
