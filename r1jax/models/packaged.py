"""Parameters in one .npz file: how the shipped mini base model travels.

A file holds the model's configuration as JSON and every parameter under its
path, e.g. 'blocks/mlp/down', in its own dtype. The shipped one was made by

    python -m r1jax.models.packaged --workdir=/tmp/pretrain \\
        --out=r1jax/models/assets/mini.npz
"""

import argparse
import dataclasses
import importlib.resources
import json
import os
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import config as config_lib
from r1jax import models
from r1jax.models import shape
from r1jax.training import checkpoint
from r1jax.types import Params

MINI = importlib.resources.files(__package__).joinpath('assets', 'mini.npz')
_FREE = ('dtype', 'param_dtype', 'remat', 'scan_layers', 'attention_chunk',
         'max_len')  # how a model computes, not what it is


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def save(path: str, config: shape.Config, params: Params) -> None:
  """Writes `params` to `path`, an .npz file."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  arrays = {_name(key): np.asarray(leaf) for key, leaf in leaves}
  text = json.dumps(dataclasses.asdict(config))
  with open(path, 'wb') as file:
    np.savez(file, **arrays, config=np.array(text))


def load(path: str, config: shape.Config, like: Params) -> Params:
  """Reads parameters as NumPy arrays.

  Args:
    path: an .npz file, or 'mini' for the one that ships with the package.
    config: the model that they are for; how it computes (dtype, remat) and
      its longest sequence may differ from what the file says.
    like: a tree of that model's parameters or their shapes.

  Raises:
    ConfigError: the file does not exist, is not such a file, or holds another
      model; names the first field that differs.
  """
  source = MINI if path == 'mini' else path
  if not os.path.exists(source):
    raise config_lib.error('init_from', 'an existing .npz file or workdir',
                           str(path))
  try:
    with np.load(source, allow_pickle=False) as file:
      arrays = dict(file)
    saved = json.loads(str(arrays.pop('config')))
  except (ValueError, KeyError, TypeError, EOFError,
          zipfile.BadZipFile) as problem:
    raise config_lib.error('init_from', 'a parameter file of r1jax',
                           str(path)) from problem
  for field, wanted in dataclasses.asdict(config).items():
    if field in _FREE or field not in saved:
      continue
    if saved[field] != wanted:
      raise config_lib.error(f'model.{field}', f'{saved[field]!r}, as in '
                             f'{path}', wanted)
  stored = jnp.dtype(saved['param_dtype'])  # NumPy's files lose bfloat16's name
  def one(key, leaf):
    array = arrays[_name(key)].view(stored)
    return array.astype(jnp.dtype(config.param_dtype)).reshape(leaf.shape)
  return jax.tree_util.tree_map_with_path(one, like)


def main() -> None:
  """Writes the last parameters of a finished stage to one file."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--out', required=True)
  args = parser.parse_args()
  fields = json.loads((args.workdir / 'config.json').read_text('utf-8'))
  config = shape.Config(**fields['model'])
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), params)
  save(args.out, config,
       checkpoint.restore_params(args.workdir.absolute(), params))


if __name__ == '__main__':
  main()
