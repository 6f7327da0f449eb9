"""DeepSeek-V3's float8 weights, each block of which has a scale.

arXiv 2412.19437, 3.3; `quantization_config` of config.json says it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from r1jax.models import architecture
from r1jax.models import file_section
from r1jax.models import tensor_files

_SCALE = '_scale_inv'


def blocks(fields: Mapping[str, Any], where: str) -> tuple[int, int] | None:
  """Rows and columns of weights that share a scale; None: no float8.

  Args:
    fields: the config.json.
    where: its path or folder, for errors.

  Raises:
    ConfigError: the weights are quantised in another way.
  """
  top = file_section.Section(fields, where)
  other = 'compression_config'  # of the library compressed-tensors
  if top.section(other):
    raise top.refused(other, 'absent', fields[other])
  section = top.section('quantization_config')
  if section is None:
    return None
  for key, only in dict(quant_method='fp8', fmt='e4m3',
                        activation_scheme='dynamic').items():
    section.fixed(key, only)
  size = section.raw('weight_block_size')
  if section.raw('quant_method') is None or not (
      isinstance(size, list) and len(size) == 2) or any(
          architecture.misfit_plain(x, int, '>= 1') for x in size):
    raise section.refused(
        '', "that of DeepSeek-V3, quant_method = 'fp8' with weight_block_size "
        'of two integers of at least 1', fields['quantization_config'])
  for key in ('modules_to_not_convert', 'ignored_layers', 'scale_fmt',
              'dequantize'):
    section.raw(key)  # each weight's own dtype, and its scale, say it
  section.finish()
  return tuple(size)


def check_none(path: str, tensors: tensor_files.Tensors,
               wanted: Iterable[str]) -> None:
  """Refuses float8 weights, whose scales the config.json must say.

  Args:
    path: of the model's folder.
    tensors: of its files.
    wanted: the names of those that are read.
  """
  for name in wanted:
    if tensors.dtypes[name].startswith('F8') or name + _SCALE in tensors.shapes:
      raise tensor_files.file_error(
          f'{path}/config.json', 'expected a quantization_config, as the '
          f'tensor {name} is of a float8 model; received none')


def dequantized(path: str, tensors: tensor_files.Tensors, rows: int,
                columns: int) -> tensor_files.Tensors:
  """The tensors with float8 weights multiplied by the scales of their blocks.

  Args:
    path: of the model's folder, for errors.
    tensors: of its files.
    rows, columns: of a block, as `blocks` says.

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
