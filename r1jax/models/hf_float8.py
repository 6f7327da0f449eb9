"""DeepSeek-V3's float8 weights, each block of which has a scale.

arXiv 2412.19437, 3.3; `quantization_config` of config.json says it.
"""

import pathlib

import numpy as np

from r1jax.models import tensor_files

_SCALE = '_scale_inv'


def check_none(path: pathlib.Path, tensors: tensor_files.Tensors) -> None:
  """Refuses float8 weights, whose scales the config.json `path` must say."""
  for name, dtype in tensors.dtypes.items():
    if dtype.startswith('F8') or name.endswith(_SCALE):
      raise tensor_files.file_error(
          path, f'expected a quantization_config, as the tensor {name} is of a '
          'float8 model; received none')


def dequantized(path: str, tensors: tensor_files.Tensors, rows: int,
                columns: int) -> tensor_files.Tensors:
  """The tensors with float8 weights multiplied by the scales of their blocks.

  Args:
    path: of the model's folder, for errors.
    tensors: of its files.
    rows, columns: of a block (hf_config.float8_blocks).

  Raises:
    ConfigError: a weight without its scales.
  """

  def read(name):
    weight = tensors.read(name)
    found = tensors.shapes.get(name + _SCALE)
    if weight.dtype.itemsize > 1:
      if found is not None:
        raise tensor_files.file_error(
            path, f'expected {name}, which has the scales {name + _SCALE}, to '
            f'be float8, received {tensors.dtypes[name]}')
      return weight
    wanted = weight.ndim == 2 and (
        -(-weight.shape[0] // rows), -(-weight.shape[1] // columns))
    if not wanted or found != wanted:
      raise tensor_files.file_error(
          path, f'expected {name}, which is float8 of shape {weight.shape}, to '
          f'have a tensor {name + _SCALE} with a scale for each block of '
          f'{rows} x {columns}, received {found}')
    scale = np.repeat(np.repeat(
        tensors.read(name + _SCALE), rows, 0), columns, 1)
    return weight.astype(np.float32) * scale[
        :weight.shape[0], :weight.shape[1]]

  shapes = {name: size for name, size in tensors.shapes.items()
            if name.removesuffix(_SCALE) not in tensors.shapes
            or not name.endswith(_SCALE)}
  return tensor_files.Tensors(shapes, read, tensors.dtypes)
