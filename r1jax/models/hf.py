"""Released models: Hugging Face folders and GGUF files as our parameters.

A model comes in shard by shard: what a device holds of a parameter is read
from the files, cast and sent there before the next, so that the host never
has more than one shard. Nothing of a file is executed.
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
  """The shape of the model in a folder or GGUF file, computed in float32.

  Raises:
    ConfigError: names the file and the key that is missing or not supported.
  """
  return hf_config.from_json(fields(path), str(path))


def load_params(path: str, config: architecture.Config, like: Params) -> Params:
  """The parameters of the model in a folder or GGUF file, on their devices.

  Args:
    path: a folder with config.json and safetensors files, or a GGUF file.
    config: from `read_config`; how it computes may differ.
    like: a tree of jax.ShapeDtypeStruct with shardings; without a head where
      the files are of a model of tokens.

  Raises:
    ConfigError: names the tensor that is missing, has another shape, or is
      no part of the model.
  """
  config.check()
  tensors = _tensors(path)
  leaves = hf_layout.leaves(config)
  shapes = {sharding.path_name(key): leaf.shape for key, leaf in
            jax.tree_util.tree_leaves_with_path(like)}
  _check(str(path), config, tensors, leaves, shapes)
  offset = fields(path).get(hf_config.OFFSET, 0.)

  def one(key, leaf):
    if sharding.path_name(key) == 'head/offset':
      return jax.device_put(np.asarray(offset, leaf.dtype), leaf.sharding)
    return _place(leaves[sharding.path_name(key)], leaf, tensors)
  return jax.tree_util.tree_map_with_path(one, like)


def fields(path: str) -> dict[str, Any]:
  """The config.json of a folder, or what it would be for a GGUF file."""
  if str(path).endswith('.gguf'):
    return gguf.fields(path)
  return tensor_files.read_json(pathlib.Path(path) / 'config.json')


def _tensors(path: str) -> tensor_files.Tensors:
  if str(path).endswith('.gguf'):
    return gguf.tensors(path)
  tensors = tensor_files.folder(pathlib.Path(path))
  blocks = fields(path).get('quantization_config')
  if not blocks:
    return tensors
  if blocks.get('quant_method') != 'fp8' or 'weight_block_size' not in blocks:
    raise tensor_files.damaged(
        f'{path}/config.json', 'expected quantization_config to be that of '
        f"DeepSeek-V3 ('fp8' in blocks), received {blocks}")
  return _dequantized(path, tensors, *blocks['weight_block_size'])


def _dequantized(path: str, tensors: tensor_files.Tensors, rows: int,
                 columns: int) -> tensor_files.Tensors:
  """Float8 weights times the scale of their block (arXiv 2412.19437, 3.3)."""
  suffix = '_scale_inv'

  def read(name):
    weight = tensors.read(name)
    if weight.dtype.itemsize > 1:
      return weight
    wanted = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    if tensors.shapes.get(name + suffix) != wanted:
      raise tensor_files.damaged(
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


def _check(path: str, config: architecture.Config, tensors: tensor_files.Tensors,
           leaves: Mapping[str, hf_layout.Leaf], shapes: Mapping[str, Any]):
  """ConfigError unless the tensors are those of the model."""
  wanted = {name: leaf.their_shape(shapes[key])
            for key, leaf in leaves.items() if key in shapes
            for name in leaf.names(shapes[key])}
  for name, size in wanted.items():
    if name not in tensors.shapes:
      raise tensor_files.damaged(path, f'the tensor {name} is missing')
    if tuple(tensors.shapes[name]) != size:
      raise tensor_files.damaged(path, f'expected the tensor {name} to be {size},'
                               f' received {tuple(tensors.shapes[name])}')
  for name in tensors.shapes:
    if name not in wanted and not _spare(name, config):
      raise tensor_files.damaged(
          path, f'the tensor {name} is no part of such a model')


def _spare(name: str, config: architecture.Config) -> bool:
  """Whether a model's files may have this tensor, which no model needs."""
  if name.endswith('rotary_emb.inv_freq'):
    return True
  if name == 'lm_head.weight':
    return config.tied or config.scalar
  # DeepSeek-V3's layer behind the last, which predicts one token further on.
  return config.moe is not None and name.startswith(
      f'model.layers.{config.layers}.')


def _place(leaf: hf_layout.Leaf, like: jax.ShapeDtypeStruct,
           tensors: tensor_files.Tensors) -> jax.Array:
  """One parameter, shard by shard."""
  parts = {}  # and the devices of each: copies are read once
  for device, index in like.sharding.addressable_devices_indices_map(
      like.shape).items():
    parts.setdefault(str(index), (index, []))[1].append(device)
  arrays = []
  for index, where in parts.values():
    part = _part(leaf, like, index, tensors)
    arrays += jax.block_until_ready(
        [jax.device_put(part, device) for device in where])
    del part  # before the next is read
  return jax.make_array_from_single_device_arrays(
      like.shape, like.sharding, arrays)


def _part(leaf: hf_layout.Leaf, like: jax.ShapeDtypeStruct, index,
          tensors: tensor_files.Tensors) -> np.ndarray:
  """What one device holds of a parameter."""
  ranges = [range(*part.indices(size))
            for part, size in zip(index, like.shape)]
  part = np.empty([len(r) for r in ranges], like.dtype)
  for at in np.ndindex(part.shape[:leaf.stacked]):
    tensor = tensors.read(leaf.tensor(tuple(r[i] for r, i in zip(ranges, at))))
    part[at] = leaf.ours(tensor, like.shape[leaf.stacked:])[
        index[leaf.stacked:]]
  return part
