"""Import of published models: Hugging Face folders and GGUF files.

A parameter is read shard by shard: the part that a device holds is read from
the files, cast and sent to it before the next is read, so that the host never
holds more than one shard. Nothing in a file is executed.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import numpy as np

from r1jax.models import architecture
from r1jax.models import gguf
from r1jax.models import hf_config
from r1jax.models import hf_layout
from r1jax.models import tensor_files
from r1jax.parallel import sharding
from r1jax.types import Params


def read_config(path: str) -> architecture.Config:
  """The architecture of the model in a folder or GGUF file, in float32.

  Raises:
    ConfigError: names the file and the key that is missing, out of bounds or
      not supported.
  """
  return hf_config.from_json(read_fields(path), str(path))


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
  tensors = _open_tensors(path)
  leaves = hf_layout.leaves(config)
  shapes = {sharding.path_name(key): leaf.shape for key, leaf in
            jax.tree_util.tree_leaves_with_path(like)}
  _check(str(path), config, tensors, leaves, shapes)
  offset = read_fields(path).get(hf_config.OFFSET, 0.)

  def load(key, leaf):
    if sharding.path_name(key) == 'head/offset':
      return jax.device_put(np.asarray(offset, leaf.dtype), leaf.sharding)
    return _load_param(leaves[sharding.path_name(key)], leaf, tensors)
  return jax.tree_util.tree_map_with_path(load, like)


def read_fields(path: str) -> dict[str, Any]:
  """The config.json of a folder, or its equivalent for a GGUF file."""
  if str(path).endswith('.gguf'):
    return gguf.read_fields(path)
  return tensor_files.read_json(pathlib.Path(path) / 'config.json')


def _open_tensors(path: str) -> tensor_files.Tensors:
  if str(path).endswith('.gguf'):
    return gguf.open_tensors(path)
  tensors = tensor_files.open_folder(pathlib.Path(path))
  blocks = hf_config.float8_blocks(read_fields(path), path)
  return _dequantized(path, tensors, *blocks) if blocks else tensors


def _dequantized(path: str, tensors: tensor_files.Tensors, rows: int,
                 columns: int) -> tensor_files.Tensors:
  """Float8 weights times the scales of their blocks (arXiv 2412.19437, 3.3)."""
  suffix = '_scale_inv'

  def read(name):
    weight = tensors.read(name)
    if weight.dtype.itemsize > 1:
      return weight
    wanted = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    if tensors.shapes.get(name + suffix) != wanted:
      raise tensor_files.file_error(
          path, f'expected {name}, which is float8, to have a tensor '
          f'{name + suffix} of shape {wanted}, received '
          f'{tensors.shapes.get(name + suffix)}')
    scale = np.repeat(np.repeat(
        tensors.read(name + suffix), rows, 0), columns, 1)
    return weight.astype(np.float32) * scale[
        :weight.shape[0], :weight.shape[1]]

  shapes = {name: size for name, size in tensors.shapes.items()
            if not name.endswith(suffix)}
  return tensor_files.Tensors(shapes, read)


def _check(path: str, config: architecture.Config,
           tensors: tensor_files.Tensors, leaves: Mapping[str, hf_layout.Leaf],
           shapes: Mapping[str, tuple[int, ...]]) -> None:
  """Raises `ConfigError` unless the tensors are those of the model."""
  wanted = {name: leaf.hf_shape(shapes[key])
            for key, leaf in leaves.items() if key in shapes
            for name in leaf.hf_names(shapes[key])}
  for name, size in wanted.items():
    if name not in tensors.shapes:
      raise tensor_files.file_error(path, f'the tensor {name} is missing')
    if tuple(tensors.shapes[name]) != size:
      raise tensor_files.file_error(
          path, f'expected the tensor {name} to be {size}, received '
          f'{tuple(tensors.shapes[name])}')
  for name in tensors.shapes:
    if name not in wanted and not _is_ignored(name, config):
      raise tensor_files.file_error(
          path, f'the tensor {name} does not belong to this model')


def _is_ignored(name: str, config: architecture.Config) -> bool:
  """Whether a tensor may be in a model's files without being used."""
  if name.endswith('rotary_emb.inv_freq'):
    return True
  if name == 'lm_head.weight':
    return config.tied or config.scalar
  # DeepSeek-V3's multi-token prediction: a layer after the last.
  return config.moe is not None and name.startswith(
      f'model.layers.{config.layers}.')


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
