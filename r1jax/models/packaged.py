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

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.models import architecture
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
  config = architecture.from_fields(_read(path)[0])
  config.check()
  return config


def load_params(path: str, config: architecture.Config, like: Params) -> Params:
  """Reads parameters as NumPy arrays.

  Args:
    path: an .npz file, or one of SHIPPED.
    config: of the model to be initialised; fields in `architecture.FREE` may
      differ from the file's.
    like: the model's parameters or their jax.ShapeDtypeStruct.

  Raises:
    ConfigError: the file does not exist, is not a parameter file of r1jax, or
      holds another architecture; names the first field that differs.
  """
  saved, arrays = _read(path)
  architecture.check_same(architecture.from_fields(saved), config, path)

  def convert(key, leaf):
    array = arrays[sharding.path_name(key)]
    if array.dtype.kind == 'V':  # NumPy files do not name bfloat16
      array = array.view(jnp.bfloat16)
    return array.astype(leaf.dtype).reshape(leaf.shape)
  return jax.tree_util.tree_map_with_path(convert, like)


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
    return json.loads(str(arrays.pop('config'))), arrays
  except (ValueError, KeyError, TypeError, EOFError,
          zipfile.BadZipFile) as problem:
    raise errors.expected(
        'init_from', 'a parameter file of r1jax', str(path)) from problem
