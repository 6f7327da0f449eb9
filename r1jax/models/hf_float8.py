"""DeepSeek-V3's float8 weights, each block of which has a scale.

arXiv 2412.19437, 3.3; `quantization_config` of config.json says it.
"""

from typing import Any

import numpy as np

from r1jax import errors
from r1jax.models import tensor_files

_SCALE = '_scale_inv'
# Keys of quantization_config, and what each may be; None: anything, since it
# is about computing in float8, which a model here does not.
_KEYS = dict(
    quant_method=('fp8',), fmt=('e4m3',), activation_scheme=('dynamic',),
    weight_block_size=None, scale_fmt=None, modules_to_not_convert=None,
    ignored_layers=None, dequantize=None)


def dequantized(path: str, tensors: tensor_files.Tensors,
                section: dict[str, Any]) -> tensor_files.Tensors:
  """The tensors with float8 weights multiplied by the scales of their blocks.

  Args:
    path: of the model's folder, for errors.
    tensors: of its files.
    section: `quantization_config` of its config.json.

  Raises:
    ConfigError: another quantisation, or a weight without its scales.
  """
  rows, columns = _blocks(path, section)

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


def _blocks(path: str, section: Any) -> tuple[int, int]:
  """The rows and columns of a block."""
  sizes = section.get('weight_block_size') if isinstance(
      section, dict) else None
  if sizes is None or section.get('quant_method') != 'fp8':
    raise _error(path, "quantization_config to be that of DeepSeek-V3 ('fp8' "
                 'in blocks)', section)
  if not (isinstance(sizes, list) and len(sizes) == 2 and all(
      type(size) is int and size > 0 for size in sizes)):
    raise _error(path, 'quantization_config.weight_block_size to be two '
                 'numbers of rows and columns', sizes)
  for key, value in section.items():
    if key not in _KEYS:
      raise _error(path, 'quantization_config to have no key but '
                   + ', '.join(_KEYS), key)
    if _KEYS[key] and value is not None and value not in _KEYS[key]:
      raise _error(path, f'quantization_config.{key} to be '
                   + ' or '.join(map(repr, _KEYS[key])), value)
  return sizes[0], sizes[1]


def _error(path: str, expected: str, received: Any) -> errors.ConfigError:
  return tensor_files.file_error(
      f'{path}/config.json', f'expected {expected}, received {received!r}')
