"""The interface of vocabularies: text to token ids and back."""

import abc
from collections.abc import Callable, Iterable
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

from absl import logging

from r1jax import errors
from r1jax.data import json_object
from r1jax.data import ragged
from r1jax.data.vocabs import settings

_TEMPLATE = 'chat_template.jinja'
_NAMES = ('tokenizer_config.json', 'generation_config.json', 'config.json')
_SPECIAL, _ADDED = 'special_tokens_map.json', 'added_tokens.json'
SETTINGS = (*_NAMES, _SPECIAL, _ADDED, _TEMPLATE)  # files beside a tokenizer


class Files(NamedTuple):
  """The settings files beside a tokenizer, or settings in their form."""
  tokenizer: dict[str, Any]  # tokenizer_config.json, without its template
  generation: dict[str, Any]  # generation_config.json
  model: dict[str, Any]  # config.json
  chat_template: str | None

  def tokens(self) -> dict[str, str]:
    """Special tokens by the names templates use: {'eos_token': '</s>'}."""
    by_role = {f'{role}_token': _content(self.tokenizer.get(f'{role}_token'))
               for role in settings.ROLES}
    return {name: token for name, token in by_role.items() if token is not None}

  def by_file(self, role: str, token_id: Callable[[str], int | None]
              ) -> dict[str, list[int | None]]:
    """{file: the ids of a role that it names}; None for an unknown token."""
    found = {name: _named(role, values, token_id)
             for name, values in zip(_NAMES, self[:3])}
    return {name: ids for name, ids in found.items() if ids}

  def ids(self, role: str,
          token_id: Callable[[str], int | None]) -> list[int | None]:
    """The ids of a role, the tokenizer's first, then the model's.

    Those of the model are in generation_config.json or, if it names none, in
    config.json, as in transformers; vLLM takes the tokenizer's, too.
    """
    own, generation, model = (
        self.by_file(role, token_id).get(name, []) for name in _NAMES)
    return list(dict.fromkeys(own + (generation or model)))

  def added(self) -> dict[str, int]:
    """{token: id} of those that were added to a tokenizer later."""
    return {entry['content']: i for i, entry in self.entries()}

  def entries(self) -> list[tuple[int, dict[str, Any]]]:
    """Those with their ids and flags, in the order of ids."""
    return sorted(((int(i), entry) for i, entry in (
        self.tokenizer.get('added_tokens_decoder') or {}).items()),
                  key=lambda pair: pair[0])

  def special(self) -> tuple[dict[str, dict[str, Any]], ...]:
    """{token: its flags} of those that have a name, and of other special ones.

    A name may be a model's own: {'image_token': '<image>'}.
    """
    named = [value for key, value in self.tokenizer.items()
             if key.endswith('_token') and settings.is_token(value)]
    others = []
    for values in filter(None, map(self.tokenizer.get, settings.LISTS)):
      if isinstance(values, dict):
        named += values.values()
      else:
        others += values
    return tuple({_content(x): x if isinstance(x, dict) else {} for x in tokens}
                 for tokens in (named, others))


def read_files(folder: pathlib.Path) -> Files:
  """Reads those that exist.

  Raises:
    ConfigError: names the file that is no JSON object, or the key of it that
      has another type, or that another file contradicts.
  """
  tokenizer, generation, model = (_settings(folder / name) for name in _NAMES)
  for name, values in zip(_NAMES, (tokenizer, generation, model)):
    settings.check(folder / name, values)
  _add_special(folder, tokenizer)
  _add_tokens(folder, tokenizer)
  template = tokenizer.pop('chat_template', None)
  if isinstance(template, list):  # several, by name
    template = {t['name']: t['template'] for t in template}.get('default')
  if os.path.lexists(folder / _TEMPLATE):
    template = _template(folder / _TEMPLATE, template)
  return Files(tokenizer, generation, model, template)


def _add_special(folder: pathlib.Path, tokenizer: dict[str, Any]) -> None:
  """Adds the special tokens that tokenizer_config.json leaves out."""
  special = _settings(folder / _SPECIAL)
  settings.check(folder / _SPECIAL, special)
  for key, value in special.items():
    known = tokenizer.get(key)
    if key in settings.LISTS and value:
      tokenizer[key] = known or (
          value if isinstance(value, dict) else [*map(_content, value)])
    elif key.endswith('_token') and settings.is_token(value):
      if known is not None and _content(known) != _content(value):
        raise errors.ConfigError(
            'vocab.path', f'{folder}: {key} is {_content(known)!r} in '
            f'{_NAMES[0]} and {_content(value)!r} in {_SPECIAL}; change one of '
            'them')
      tokenizer[key] = value if known is None else known


def _add_tokens(folder: pathlib.Path, tokenizer: dict[str, Any]) -> None:
  """Adds those of added_tokens.json to those of tokenizer_config.json."""
  added = _settings(folder / _ADDED)
  for token, i in added.items():
    if type(i) is not int or i < 0:
      raise errors.ConfigError(
          'vocab.path', f'{folder / _ADDED}: expected the id of {token!r}, '
          f'received {i!r}')
    known = tokenizer.get('added_tokens_decoder') or {}
    tokenizer['added_tokens_decoder'] = known
    entry = known.setdefault(str(i), {'content': token})
    if entry['content'] != token:
      raise errors.ConfigError(
          'vocab.path', f'{folder}: token {i} is {entry["content"]!r} in '
          f'{_NAMES[0]} and {token!r} in {_ADDED}; change one of them')


def _template(file: pathlib.Path, other: str | None) -> str:
  """The chat template of a file of its own, which goes first."""
  try:
    template = file.read_text('utf-8')
  except (OSError, UnicodeDecodeError) as e:
    raise errors.ConfigError(
        'vocab.path', f'expected a chat template in {file} ({e})') from e
  if other is not None and other.strip() != template.strip():
    logging.warning('%s: the chat template is this file, not the other one in '
                    '%s', file, _NAMES[0])
  return template


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
  ids = ids if isinstance(ids, list) else [ids]
  return [i for i in ids if i is not None and i >= 0]  # SentencePiece: -1, none


def _settings(file: pathlib.Path) -> dict[str, Any]:
  if not os.path.lexists(file):  # a broken link is no absence
    return {}
  try:
    return json_object.parse(file.read_bytes())
  except (OSError, ValueError) as e:
    raise errors.ConfigError(
        'vocab.path', f'expected a JSON object in {file} ({e})') from e


def _check_added(path: str, size: int | None, files: Files,
                 token_id: Callable[[str], int | None]) -> None:
  """Raises if settings give a token of the tokenizer another id, or meaning.

  Where a `size` is given, tokens behind the last are only named, unless the
  chat template writes them.
  """
  behind = []
  for token, i in files.added().items():
    known = token_id(token)
    if known is None and size is not None and i >= size:
      behind.append(f'{token!r} ({i})')
      if token in (files.chat_template or ''):
        raise errors.ConfigError(
            'vocab.path', f'{path} has no {behind[-1]}, which the settings '
            'beside it add and the chat template writes; save the tokenizer '
            'with transformers, as a tokenizer.json')
    elif known != i:
      raise errors.ConfigError(
          'vocab.path', f'{_NAMES[0]} or {_ADDED} beside {path} has {token!r} '
          f'as token {i}, the tokenizer as {known}')
  if behind:
    logging.warning(
        '%s: tokens that the settings beside it add to its %d are not used: '
        '%s%s', path, size, ', '.join(behind[:3]),
        f' and {len(behind) - 3} more' if len(behind) > 3 else '')


class Vocab(abc.ABC):
  """A tokenizer with the special tokens of its model.

  Attributes:
    path: of the file it was read from.
    size: one more than the largest id.
    bos_id: starts every prompt and document that no chat template wrote; None
      if there is none.
    eos_ids: each of them ends a response.
    eos_id: the first of them; ends a document.
    pad_id: may equal eos_id, so padding is known by lengths, never by ids; it
      does where the files name none, or one behind the tokenizer's last.
    tokens: special tokens as text, by the names that chat templates use for
      them: {'eos_token': '</s>', ...}.
    chat_template: Jinja source, see chat.py; None if the model has none.
  """

  _may_lack_added = False  # whether its format cannot hold added tokens

  def __init__(self, path: str, size: int, files: Files,
               eos: str | None):
    self.path, self.size, self._files = path, size, files
    _check_added(path, size if self._may_lack_added else None, files, self._id)
    ends = [self._id(eos)] if eos is not None else self._ends()
    if not ends or None in ends:
      raise errors.ConfigError(
          'vocab.eos', f'{path} holds no such end-of-sequence token, or '
          'names none; set config.vocab.eos to one of its tokens')
    self.eos_ids = tuple(ends)
    self.eos_id = self.eos_ids[0]
    self.bos_id = self._beginning()
    pad_id = next((i for i in files.ids('pad', self._id)
                   if i is not None and i < size), None)
    self.pad_id = self.eos_id if pad_id is None else pad_id
    self._name_others('bos', self.bos_id)
    self._name_others('pad', self.pad_id)
    self.tokens = files.tokens()
    if pad_id is None:  # behind the last: the saved files go on naming it
      self.tokens.pop('pad_token', None)
    for role, i in (('bos', self.bos_id), ('eos', self.eos_id),
                    ('pad', pad_id)):
      token = None if i is None else self.token(i)
      # A name makes a token special; a word whose id pads rows is none.
      if token is not None and (role != 'pad' or not self.decode([i])):
        self.tokens[f'{role}_token'] = token
    self.chat_template = files.chat_template

  @abc.abstractmethod
  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`, nothing added at either end."""

  @abc.abstractmethod
  def encode_all(self, texts: list[str]) -> ragged.Ragged:
    """Returns the ids of each text, i32[n] as `encode` has them, on all cores.
    """

  def digest(self) -> str:
    """A digest of all that ids and chats depend on."""
    parts = [type(self).__name__, self._rules(), self.bos_id, self.eos_ids,
             self.pad_id, self.tokens, self.chat_template]
    return hashlib.sha256(repr(parts).encode()).hexdigest()

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
    tokenizer = {**self._files.tokenizer, **self._files.tokens(), **self.tokens,
                 'clean_up_tokenization_spaces': False,
                 'tokenizer_class': 'PreTrainedTokenizerFast'}
    tokenizer.pop('auto_map', None)  # names code that is not here
    generation = {**self._files.generation,
                  'eos_token_id': list(self.eos_ids)}
    if 'pad_token' in self.tokens:  # else the end token fills rows
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
    ids = self._files.ids('bos', self._id)
    if ids and (ids[0] is None or ids[0] >= self.size):
      raise errors.ConfigError(
          'vocab.path', f'{self.path} asks for a token before each text '
          '(add_bos_token), and names one that it does not hold')
    return next(iter(ids), None)

  def _settle(self, key: str, own: bool) -> None:
    """Warns if a setting is not what the tokenizer does, which goes first.

    What is saved agrees.
    """
    told = self._files.tokenizer.get(key)
    if told is not None and told != own:
      logging.warning(
          '%s does otherwise than %s: %s in the %s beside it; the former is '
          'followed', self.path, key, str(told).lower(), _NAMES[0])
      self._files = self._files._replace(
          tokenizer={**self._files.tokenizer, key: own})

  def _name_others(self, role: str, used: int | None) -> None:
    """Warns if files name different tokens of a role, or none of its tokens."""
    added = self._files.added()
    by_file = self._files.by_file(
        role, lambda token: added.get(token, self._id(token)))
    if len(set(map(tuple, by_file.values()))) > 1:
      logging.warning(
          '%s: the files beside it name different %s tokens, %s; this is used: '
          '%s', self.path, role,
          ', '.join(f'{name} {ids}' for name, ids in by_file.items()), used)
    behind = [i for ids in by_file.values() for i in ids if i is not None
              and i >= self.size and i not in added.values()]
    if behind:
      logging.warning(
          '%s: the files beside it name the %s token %d, expected one of %d '
          'tokens; this is used: %s', self.path, role, behind[0], self.size,
          used)

  def _ends(self) -> list[int | None]:
    """The ids that end a response, the tokenizer's first."""
    by_file, ends = (x('eos', self._id) for x in (
        self._files.by_file, self._files.ids))
    for name, ids in by_file.items():
      absent = [i for i in ids if i in ends and i is not None
                and i >= self.size]
      if absent:
        raise errors.ConfigError(
            'vocab.eos', f'{name} beside {self.path} names the end-of-sequence '
            f'token {absent[0]}, expected one of {self.size} tokens; set '
            'config.vocab.eos to one of them')
    first = by_file.get(_NAMES[1]) or by_file.get(_NAMES[2]) or ends
    if {i for ids in by_file.values() for i in ids} > set(first):
      logging.warning(
          '%s: the files beside it name other ends of a response, %s; these '
          'end one: %s', self.path,
          ', '.join(f'{name} {ids}' for name, ids in by_file.items()), ends)
    return ends

  @abc.abstractmethod
  def _rules(self) -> Any:
    """All that turns a text into ids."""

  @abc.abstractmethod
  def _model_files(self) -> dict[str, bytes]:
    """The tokenizer itself, by file name."""
