"""What a stage reads that its config only names, and digests of it.

A config says where data files, user code, templates, tokenizers and models are;
what they hold is outside it, and may change between a run and its resume. Data
of the mini world and the models that ship with r1jax are a part of the code.

Weights may have hundreds of gigabytes. Of a file above 64 MiB, other than of
rows or of r1jax, the digest is of its size, its header and 64 blocks spread
over it: a fraction of a second, and another model's file is never the same. A
few bytes changed in the middle of one may be overlooked.
"""

import ast
from collections.abc import Iterator, Mapping
import functools
import glob
import hashlib
import os
import pathlib
import re
import sys
from typing import Any

from r1jax import buckets
from r1jax import config as config_lib
from r1jax import digests as digests_lib
from r1jax import errors
from r1jax.data import sources
from r1jax.data import user_code
from r1jax.data import vocabs
from r1jax.models import packaged
from r1jax.models import tensor_files
from r1jax.stages import model_source
from r1jax.training import files
from r1jax.training import record

SPLIT = '{split}'
_TFDS = 'tfds:'
_FILE = re.compile(rf'\b(?:{"|".join(sources.FILES)}):(.*)', re.DOTALL)

# What an index names may lie elsewhere.
_WEIGHTS = ('*.safetensors', '*.safetensors.index.json', 'adapter_config.json')

_WHOLE = 64 << 20  # bytes of a file that is read whole
_HEADER = 16 << 20  # bytes at its beginning, with GGUF's vocabulary
_BLOCKS, _BLOCK = 64, 1 << 14  # further parts, and the bytes of each

Digests = dict[str, dict[str, str]]  # what the config names -> file -> digest


def external(config: Mapping[str, Any]) -> Digests:
  """The files of 'jsonl:PATH' and the workdirs of other runs, by their paths.

  As pipelines have always had them in begun.json.
  """
  found = {buckets.named(path): {'': digests_lib.of_file(path)}
           for pattern in patterns(config)
           for path in matches(pattern, config)}
  models = [value for field, value in config_lib.flatten(config).items()
            if field.split('.')[-1] == 'init_from' and value]
  for text in strings(config):
    path = os.path.expanduser(buckets.model(text) if text in models else text)
    if text and os.path.isdir(os.path.join(path, 'checkpoints')):
      found[text] = files.output_digests(pathlib.Path(path))
  return found


def digests(config: Mapping[str, Any]) -> Digests:
  """The digests of all that a stage's config names.

  Args:
    config: plain; of a stage of a pipeline, its references as they are written.

  Returns:
    {source, as the config says it: {file: digest}}. A file that is not there is
    left out: the stage that reads it says so.
  """
  found = {pattern: {buckets.named(path): digests_lib.of_file(path)
                     for path in matches(pattern, config)}
           for pattern in patterns(config)}
  return found | named(config)


def named(config: Mapping[str, Any]) -> Digests:
  """As `digests`, without the files of 'jsonl:PATH'."""
  found = {}
  for field, value in config_lib.flatten(config).items():
    for text in strings(value):
      if text and '{' not in text and (
          digest := _digests_of(field, text, config)) is not None:
        found.setdefault(text, {}).update(digest)
  return found


def _digests_of(field: str, text: str, config: Mapping[str, Any]
               ) -> dict[str, str] | None:
  """The digests of what a field names; None if that is nothing outside."""
  *sections, name = field.split('.')
  path = pathlib.Path(os.path.expanduser(text))
  if name == 'init_from':
    trained = 'optim' in config and field in ('init_from', 'critic.init_from')
    return _model(text, field, record.START if trained else 'checkpoints')
  if sections[-1:] == ['vocab'] and name == 'path' and path.exists():
    return _tokenizer(path)
  if name in ('task', 'examples') or sections[-1:] == ['functions']:
    if text.startswith(_TFDS):
      return _tfds(text.removeprefix(_TFDS), config)
    return _code(text.removeprefix('drafts:'))
  if (name == 'template' or 'options' in sections) and path.is_file():
    return {'': digests_lib.of_file(path)}
  return None


###############################################################################
# Files of rows
###############################################################################


def strings(value: Any) -> Iterator[str]:
  """All texts within a value of a config."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, (Mapping, list, tuple)):
    for part in value.values() if isinstance(value, Mapping) else value:
      yield from strings(part)


def patterns(value: Any) -> list[str]:
  """The paths of all 'jsonl:PATH' and the like within, as they are written."""
  return [match[1] for match in map(_FILE.search, strings(value)) if match]


def matches(pattern: str, config: Mapping[str, Any]) -> list[str]:
  """The files of a pattern, of the splits that a stage's config names."""
  splits = {'train'} | {  # which is read where nothing is said
      value.partition('[')[0]
      for field, value in config_lib.flatten(config).items()
      if field.split('.')[-1] == 'split' and value is not None}
  found = set()
  for split in splits:
    path = os.path.expanduser(
        buckets.files(pattern.replace(SPLIT, split)))
    folder, name = os.path.split(path)
    found |= set(glob.glob(os.path.join(glob.escape(folder), name))
                 if '*' in name else [path])
  return sorted(filter(os.path.isfile, found))


###############################################################################
# Code, models, tokenizers, data sets
###############################################################################


def _code(place: str) -> dict[str, str] | None:
  """The file of a user's function, and those beside it that it imports."""
  module, _, _ = place.rpartition(':')
  if not user_code.is_place(place):
    return None
  path = pathlib.Path(os.path.expanduser(module))
  if not module.endswith('.py'):  # a module, which is not imported here
    names = module.split('.')
    places = [pathlib.Path(entry, *names) for entry in sys.path]
    found = [file for place in places for file in (
        place.with_suffix('.py'), place / '__init__.py') if file.is_file()]
    path = next(iter(found), path)
  left, digest = [path], {}
  while left:
    path = left.pop()
    if path.is_file() and str(path) not in digest:
      digest[str(path)] = digests_lib.of_file(path)
      for name in _imports(path):
        left += [path.with_name(f'{name}.py'),
                 *path.with_name(name).glob('**/*.py')]  # of a package
  return digest


def _imports(path: pathlib.Path) -> Iterator[str]:
  """The first names of the modules that a file imports."""
  try:
    tree = ast.parse(path.read_bytes())
  except (SyntaxError, ValueError):
    return  # which running it will say
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name.partition('.')[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      yield node.module.partition('.')[0]
    elif isinstance(node, ast.ImportFrom):  # from . import NAME
      yield from ('__init__', *(alias.name for alias in node.names))


def _model(name: str, field: str, checkpoint: str) -> dict[str, str] | None:
  """The files of a model; {} of one that is not there.

  `checkpoint` is what that of a stage is called.
  """
  try:
    source = model_source.find(name, field)
  except errors.ConfigError:
    return {}  # the stage that reads it names what is wrong
  path = pathlib.Path(source.path)
  if source.kind == 'stage':
    return _stage(source, checkpoint)
  if source.path in packaged.SHIPPED:
    return None
  if source.kind == 'file':
    return {'': digests_lib.of_file(path)} if path.is_file() else {}
  if path.is_file():
    return {'': content_digest(path)}
  return _tokenizer(path) | {
      file.name: content_digest(file)
      for pattern in _WEIGHTS for file in sorted(path.glob(pattern))
  } | _elsewhere(path)


def _elsewhere(path: pathlib.Path) -> dict[str, str]:
  """The weights of a folder that lie in folders of it."""
  try:
    indexed = tensor_files.files(path)
  except errors.ConfigError:
    return {}  # the stage that reads it names what is wrong
  return {str(file): content_digest(file) for file in indexed
          if file.parent != path}


def _stage(source: model_source.ModelSource, checkpoint: str
          ) -> dict[str, str]:
  """What is read of a stage's workdir: its checkpoint, and what model it is of.

  Its vocabulary, and fields of the model that it leaves out, are those of the
  model that it started from.
  """
  path = pathlib.Path(source.path)
  one = path / 'manifest' / 'metadata'
  if (path / 'checkpoints').is_dir():
    digest = files.output_digests(path).get('checkpoint')
  else:
    digest = digests_lib.of_file(one) if one.is_file() else None
  found = {} if digest is None else {checkpoint: digest}
  try:
    config, parent = source.stage_config().to_dict(), source.parent()
  except errors.ConfigError:
    return found  # the stage that reads it names what is wrong
  found['config.json'] = files.config_digest(
      {name: config.get(name) for name in ('model', 'vocab', 'lora')})
  if parent is not None and parent.kind == 'stage':
    found |= {os.path.join(buckets.named(parent.path), name): digest
              for name, digest in _stage(parent, '').items() if name}
  elif parent is not None and parent.kind == 'released':
    found |= {os.path.join(buckets.named(parent.path), name): digest
              for name, digest in _tokenizer(
                  pathlib.Path(parent.path)).items()}
  return found


def _tokenizer(path: pathlib.Path) -> dict[str, str]:
  """The files of a tokenizer: in a folder, or one and what is beside it."""
  own = {} if path.is_dir() else {path.name: content_digest(path)}
  if path.suffix == '.gguf':
    return own
  folder = path if path.is_dir() else path.parent
  found = own | {name: content_digest(folder / name) for name in vocabs.FILES
                 if (folder / name).is_file()}
  return found and dict.fromkeys(record.LATER, record.ABSENT) | found


def _tfds(name: str, config: Mapping[str, Any]) -> dict[str, str]:
  """The files of a TFDS data set, where it is on a disk of this machine."""
  usual = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  folders = [value for field, value in config_lib.flatten(config).items()
             if field.split('.')[-1] == 'data_dir' and value] or [usual]
  name = name.partition(':')[0].partition('/')[0]
  return {str(path): content_digest(path) for folder in folders
          for path in sorted(
              pathlib.Path(os.path.expanduser(folder), name).rglob('*'))
          if path.is_file()}


def content_digest(path: pathlib.Path) -> str:
  """The digest of a file, in parts if it is large; see the module's docstring.
  """
  with errors.faults(path):
    stat = path.stat()
    if stat.st_size <= _WHOLE:
      return digests_lib.of_file(path)
    return _sampled(str(path), stat.st_size, stat.st_ino, stat.st_mtime_ns)


@functools.cache
def _sampled(path: str, size: int, *version: int) -> str:
  del version  # by which it is remembered
  digest = hashlib.sha256(str(size).encode())
  with open(path, 'rb') as file:
    head = _HEADER
    if path.endswith('.safetensors'):  # whose header's length comes first
      head = min(8 + int.from_bytes(file.read(8), 'little'), head)
      file.seek(0)
    digest.update(file.read(head))
    for number in range(_BLOCKS):
      file.seek(head + (size - head - _BLOCK) * number // (_BLOCKS - 1))
      digest.update(file.read(_BLOCK))
  return digest.hexdigest()
