"""Models in one .npz file each, such as those shipped for the mini world.

A file holds the model's configuration as JSON and every parameter by its path,
e.g. 'blocks/mlp/down', in its own dtype. The shipped files were made by

    python -m r1jax.export --workdir=/tmp/pretrain \\
        --out=r1jax/mini/assets/mini.npz

from a run of experiments/pretrain.py:mini, and of :student and helper.py:mini.
"""

import dataclasses
import importlib.resources
import json
import os
from typing import Any
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import hf_layout
from r1jax.parallel import sharding
from r1jax.training import files
from r1jax.types import Params

# The base model, the helper that makes R1's data, and the base of the student
# that R1 is distilled into; all of one vocabulary.
SHIPPED = ('mini', 'mini_helper', 'mini_student')


def save_params(path: str, config: architecture.Config, params: Params) -> None:
  """Writes `params` to `path`, an .npz file."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  arrays = {sharding.path_name(key): np.asarray(leaf) for key, leaf in leaves}
  text = json.dumps(dataclasses.asdict(config))
  with files.write_whole(path) as part, open(part, 'wb') as file:
    np.savez(file, **arrays, config=np.array(text))


def read_config(path: str) -> architecture.Config:
  """The architecture of the model in a file. Errors as `load_params`."""
  return _checked(path, _read(path)[0])


def load_params(path: str, config: architecture.Config, like: Params) -> Params:
  """Reads parameters as NumPy arrays.

  Args:
    path: an .npz file, or one of SHIPPED.
    config: of the model to be initialised; fields in `architecture.FREE` may
      differ from the file's.
    like: the model's parameters or their jax.ShapeDtypeStruct.

  Raises:
    ConfigError: the file does not exist, is not a parameter file of r1jax, or
      holds another architecture; names the first field that differs. Or the
      arrays are not those of its architecture.
  """
  saved, arrays = _read(path)
  known = _checked(path, saved)
  architecture.check_same(known, config, path)

  def convert(key, leaf):
    array = arrays.pop(sharding.path_name(key), None)
    if array is not None and array.dtype == 'V2':
      array = array.view(jnp.bfloat16)  # NumPy files do not name bfloat16
    if (array is None or array.shape != leaf.shape
        or not jnp.issubdtype(array.dtype, jnp.floating)):
      received = 'none' if array is None else f'{array.dtype} {array.shape}'
      raise errors.expected(
          'init_from', f'an array {sharding.path_name(key)} of floats '
          f'{leaf.shape} in {path}', received)
    return array.astype(leaf.dtype)

  params = jax.tree_util.tree_map_with_path(convert, like)
  unused = sorted(arrays.keys() - hf_layout.leaves(known).keys()
                  - {'head/offset'})
  if unused:
    raise errors.expected(
        'init_from', f'no array that is not of its model in {path}', unused[0])
  return params


def _checked(path: str, fields: dict[str, Any]) -> architecture.Config:
  """The architecture in a file; an error names the file."""
  try:
    config = architecture.from_fields(fields)
    config.check()
    return config
  except errors.ConfigError as problem:
    raise errors.ConfigError('init_from', f'{path}: {problem}') from problem


def _read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The fields of the configuration, and the arrays by their paths."""
  source = path if path not in SHIPPED else importlib.resources.files(
      'r1jax.mini').joinpath('assets', f'{path}.npz')
  if not os.path.exists(source):
    raise errors.expected(
        'init_from', 'an existing .npz file or workdir', str(path))
  try:
    with np.load(source, allow_pickle=False) as file:
      arrays = dict(file)
    fields = json.loads(str(arrays.pop('config')))
    if not isinstance(fields, dict):
      raise ValueError(f'a config that is {fields!r:.80}')
    return fields, arrays
  except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError,
          MemoryError, zipfile.BadZipFile, zlib.error) as problem:
    raise errors.expected(
        'init_from', 'a parameter file of r1jax', str(path)) from problem
