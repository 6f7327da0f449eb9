"""Import of published models: Hugging Face folders and GGUF files.

A parameter is read shard by shard: the part that a device holds is read from
the files, cast and sent to it before the next is read, so that the host never
holds more than one shard. Nothing in a file is executed.
"""

from collections.abc import Callable, Mapping
import pathlib
import re
from typing import Any

from absl import logging
import jax
import numpy as np

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import gguf
from r1jax.models import gguf_config
from r1jax.models import hf_config
from r1jax.models import hf_float8
from r1jax.models import hf_layout
from r1jax.models import tensor_files
from r1jax.parallel import sharding
from r1jax.types import Params

_EMBEDDING, _HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
_HEADS = ('lm_head.', 'score.')
_ADAPTER = 'adapter_config.json'
# Not read, since config.json has what they hold.
_BUFFERS = (
    r'(.*\.)?rotary_emb\.((original_)?inv_freq|(cos|sin)_cached)',
    r'.*\.position_ids', r'.*\.masked_bias',
    r'blk\.\d+\.attn_rot_embd\.weight')


def read_config(path: str) -> architecture.Config:
  """The architecture of the model in a folder or GGUF file, in float32.

  Raises:
    ConfigError: names the file and the key that is missing, out of bounds or
      not supported.
  """
  config = hf_config.from_json(read_fields(path), str(path))
  if str(path).endswith('.gguf'):
    _check_beside(pathlib.Path(path), config)
  return config


def _check_beside(path: pathlib.Path, config: architecture.Config) -> None:
  """Warns if the config.json beside a GGUF file says what it does not."""
  beside = path.parent / 'config.json'
  if not beside.exists():
    return
  try:
    other = hf_config.from_json(tensor_files.read_json(beside), str(beside))
  except errors.ConfigError as problem:
    logging.warning('%s: the config.json beside it is not read (%s)', path,
                    problem.message)
    return
  found = architecture.difference(config, other)
  if found is None and config.max_len != other.max_len:  # one of FREE
    found = 'max_len', config.max_len, other.max_len
  if found:
    logging.warning('%s is another model than %s, which is not read: %s is %r '
                    'in the first, %r in the second', path, beside, *found)


def load_params(path: str, config: architecture.Config, like: Params) -> Params:
  """The parameters of the model in a folder or GGUF file, on their devices.

  Args:
    path: a folder with config.json and safetensors files, or a GGUF file.
    config: from `read_config`; fields in `architecture.FREE` may differ.
    like: the parameters' jax.ShapeDtypeStruct, with shardings; without a head
      if the files are of a language model.

  Raises:
    ConfigError: names the tensor that is missing, has another shape, or does
      not belong to the model.
  """
  fields = read_fields(path)
  tensors = _open_tensors(path, fields, config.tied)
  leaves = hf_layout.leaves(config)
  shapes = {sharding.path_name(key): leaf.shape for key, leaf in
            jax.tree_util.tree_leaves_with_path(like)}
  wanted = {name: leaf.hf_shape(shapes[key])
            for key, leaf in leaves.items() if key in shapes
            for name in leaf.hf_names(shapes[key])}
  keys = ', '.join(hf_config.left_out(fields))
  left_out = f'; config.json leaves out {keys}' if keys else ''
  _check_wanted(str(path), tensors, wanted, left_out)
  if hf_float8.blocks(fields, str(path)) is None:
    hf_float8.check_none(str(path), tensors, wanted)
  further, offset = hf_config.beyond(fields, str(path))
  _check_unused(str(path), tensors, _unused(
      config, further, tensors, wanted), left_out)
  _check_head(str(path), config, tensors)

  def load(key, leaf):
    if sharding.path_name(key) == 'head/offset':
      return jax.device_put(np.asarray(offset, leaf.dtype), leaf.sharding)
    return _load_param(leaves[sharding.path_name(key)], leaf, tensors)
  return jax.tree_util.tree_map_with_path(load, like)


def read_fields(path: str) -> dict[str, Any]:
  """The config.json of a folder, or its equivalent for a GGUF file."""
  if str(path).endswith('.gguf'):
    return gguf_config.read_fields(path)
  folder = pathlib.Path(path)
  if (folder / _ADAPTER).exists():
    raise tensor_files.file_error(
        folder / _ADAPTER, 'an adapter is not applied; merge it into its base '
        "(peft's merge_and_unload), or remove it if that is done")
  return tensor_files.read_json(folder / 'config.json')


def _open_tensors(path: str, fields: dict[str, Any], tied: bool
                 ) -> tensor_files.Tensors:
  """The tensors by the names that a language model's file has."""
  if str(path).endswith('.gguf'):
    return gguf.open_tensors(path)
  folder = pathlib.Path(path)
  asked = fields.get('transformers_weights') or tensor_files.FILE
  if asked not in (tensor_files.FILE, tensor_files.INDEX):
    raise tensor_files.file_error(
        folder / 'config.json', f'expected transformers_weights to be '
        f'{tensor_files.FILE}, received {asked!r}')
  tensors = tensor_files.open_folder(folder)
  blocks = hf_float8.blocks(fields, str(path))
  if blocks is not None:
    tensors = hf_float8.dequantized(str(path), tensors, *blocks)
  part, _, rest = _EMBEDDING.partition('.')
  if _EMBEDDING in tensors.shapes:
    return tensors
  if rest in tensors.shapes:  # saved without its head, whose names lack a part
    return _renamed(tensors, lambda name: (
        name if name.startswith(_HEADS) else f'{part}.{name}'))
  if tied and _HEAD in tensors.shapes:  # saved once, by its other name
    return _renamed(
        tensors, lambda name: _EMBEDDING if name == _HEAD else name)
  return tensors


def _renamed(tensors: tensor_files.Tensors, name_of: Callable[[str], str]
            ) -> tensor_files.Tensors:
  """The tensors by the names that `name_of` gives to theirs."""
  own = {name_of(name): name for name in tensors.shapes}
  return tensor_files.Tensors(
      {name: tensors.shapes[x] for name, x in own.items()},
      lambda name: tensors.read(own[name]),
      {name: tensors.dtypes[x] for name, x in own.items()})


def _check_wanted(path: str, tensors: tensor_files.Tensors,
                  wanted: Mapping[str, tuple[int, ...]], left_out: str) -> None:
  """Raises `ConfigError` unless all tensors of the model are there.

  `left_out` ends the message: keys of config.json that may be the cause.
  """
  for name, size in wanted.items():
    if name not in tensors.shapes:
      wrapped = [x for x in tensors.shapes if x.endswith(f'.{name}')]
      raise tensor_files.file_error(
          path, f'the tensor {name} is missing' + (
              f'; it is there as {wrapped[0]}, under the prefix of a wrapper: '
              'save the model that is inside' if wrapped else
              '; of a model without one, config.json says '
              'tie_word_embeddings=true' if name == _HEAD else left_out))
    if tuple(tensors.shapes[name]) != size:
      raise tensor_files.file_error(
          path, f'expected the tensor {name} to be {size}, received '
          f'{tuple(tensors.shapes[name])}{left_out}')


def _check_unused(path: str, tensors: tensor_files.Tensors,
                  unused: list[str], left_out: str) -> None:
  """Raises `ConfigError` if a weight is unused, as of another architecture.

  What holds no fractions, or nothing, is no weight, and is only named.
  """
  counts = [name for name in unused
            if tensors.dtypes[name] in tensor_files.COUNTS
            or 0 in tensors.shapes[name]]
  weights = [name for name in unused if name not in counts]
  if weights:
    raise tensor_files.file_error(
        path, f'{_few(weights)} does not belong to this model, whose '
        f'configuration is of one that computes without it{left_out}')
  if counts:
    logging.warning('%s: %s does not belong to this model and is not read',
                    path, _few(counts))


def _few(names: list[str]) -> str:
  more = f' (and {len(names) - 3} more)' if len(names) > 3 else ''
  return f'the tensor {", ".join(names[:3])}{more}'


def _unused(config: architecture.Config, further: int,
            tensors: tensor_files.Tensors, wanted: Mapping[str, Any]
            ) -> list[str]:
  """The tensors that are neither wanted nor known to change nothing.

  Args:
    config: of the model.
    further: layers behind the last, DeepSeek-V3's multi-token prediction.
    tensors: of the files.
    wanted: by their names, those of the model.
  """
  known = _BUFFERS
  if config.tied or config.scalar:
    known += (re.escape(_HEAD),)

  def is_known(name):
    layer = re.match(r'model\.layers\.(\d{1,9})\.', name)
    return any(re.fullmatch(x, name) for x in known) or (
        layer is not None and 0 <= int(layer[1]) - config.layers < further)
  return sorted(name for name in tensors.shapes
                if name not in wanted and not is_known(name))


def _check_head(path: str, config: architecture.Config,
                tensors: tensor_files.Tensors) -> None:
  """Raises `ConfigError` if a tied model has a head of its own."""
  if not config.tied or config.scalar or _HEAD not in tensors.shapes:
    return
  if not np.array_equal(  # a NaN, of weights that diverged, is the same, too
      tensors.read(_HEAD), tensors.read(_EMBEDDING), equal_nan=True):
    raise tensor_files.file_error(
        path, f'holds an {_HEAD} that is not {_EMBEDDING}, while config.json '
        'says tie_word_embeddings=true, or leaves it to the default of its '
        'architecture; set it to false to use the head, or remove the tensor')


def _load_param(leaf: hf_layout.Leaf, like: jax.ShapeDtypeStruct,
                tensors: tensor_files.Tensors) -> jax.Array:
  """One parameter on its devices, read shard by shard."""
  shards = {}  # (index, devices): copies of a shard are read once
  for device, index in like.sharding.addressable_devices_indices_map(
      like.shape).items():
    shards.setdefault(str(index), (index, []))[1].append(device)
  arrays = []
  for index, devices in shards.values():
    shard = _read_shard(leaf, like, index, tensors)
    arrays += jax.block_until_ready(
        [jax.device_put(shard, device) for device in devices])
    del shard  # before the next is read
  return jax.make_array_from_single_device_arrays(
      like.shape, like.sharding, arrays)


def _read_shard(leaf: hf_layout.Leaf, like: jax.ShapeDtypeStruct,
                index: tuple[slice, ...], tensors: tensor_files.Tensors
                ) -> np.ndarray:
  """The part of a parameter that one device holds."""
  ranges = [range(*entries.indices(size))
            for entries, size in zip(index, like.shape)]
  shard = np.empty([len(r) for r in ranges], like.dtype)
  for at in np.ndindex(shard.shape[:leaf.stacked]):
    tensor = tensors.read(
        leaf.hf_name(tuple(r[i] for r, i in zip(ranges, at))))
    shard[at] = leaf.from_hf(tensor, like.shape[leaf.stacked:])[
        index[leaf.stacked:]]
  return shard
