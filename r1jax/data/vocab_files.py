"""The files beside a tokenizer: special tokens and chat template.

Of a model's folder tokenizer_config.json names the special tokens and, in
older folders, holds the chat template; generation_config.json lists all tokens
that end a response; config.json is asked where those two are silent. None of
them need exist.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from r1jax import config as config_lib

ROLES = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')

_TEMPLATE = 'chat_template.jinja'
_NAMES = ('tokenizer_config.json', 'generation_config.json', 'config.json')


class Files(NamedTuple):
  """What the files say, or what another source says in their words."""
  tokenizer: dict[str, Any]  # tokenizer_config.json, without its template
  generation: dict[str, Any]  # generation_config.json
  model: dict[str, Any]  # config.json
  chat_template: str | None

  def tokens(self) -> dict[str, str]:
    """Special tokens by the names templates use: {'eos_token': '</s>'}."""
    found = {f'{role}_token': _content(self.tokenizer.get(f'{role}_token'))
             for role in ROLES}
    return {name: token for name, token in found.items() if token is not None}

  def ids(self, role: str,
          token_id: Callable[[str], int | None]) -> list[int | None]:
    """The ids of a role, the tokenizer's first; None for an unknown token."""
    found = [i for values in (self.tokenizer, self.generation)
             for i in _named(role, values, token_id)]
    return list(dict.fromkeys(found or _named(role, self.model, token_id)))


def read(folder: pathlib.Path) -> Files:
  """Reads what there is; ConfigError for a file that is no JSON object."""
  tokenizer, generation, model = (_settings(folder / name) for name in _NAMES)
  template = tokenizer.pop('chat_template', None)
  if isinstance(template, list):  # several, by name
    template = {t['name']: t['template'] for t in template}.get('default')
  if (folder / _TEMPLATE).exists():
    template = (folder / _TEMPLATE).read_text('utf-8')
  return Files(tokenizer, generation, model, template)


def write(folder: pathlib.Path, files: Files) -> None:
  """Writes what `read` reads, but for config.json: that is the model's."""
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
    raise config_lib.ConfigError(
        f'config.vocab.path: no such file or folder: {path}')
  return path


def _content(token: Any) -> str | None:
  return token['content'] if isinstance(token, dict) else token


def _named(role: str, values: dict[str, Any],
           token_id: Callable[[str], int | None]) -> list[int | None]:
  token = _content(values.get(f'{role}_token'))
  if token is not None:
    return [token_id(token)]
  found = values.get(f'{role}_token_id')
  if found is None:
    return []
  return found if isinstance(found, list) else [found]


def _settings(file: pathlib.Path) -> dict[str, Any]:
  if not file.exists():
    return {}
  try:
    found = json.loads(file.read_text('utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as e:
    raise _no_object(file, e) from e
  if not isinstance(found, dict):
    raise _no_object(file, type(found).__name__)
  return found


def _no_object(file: pathlib.Path, reason: object) -> config_lib.ConfigError:
  return config_lib.ConfigError(
      f'config.vocab.path: expected a JSON object in {file} ({reason})')
