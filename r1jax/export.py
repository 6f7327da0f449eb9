"""Writes the model that a finished stage has trained.

    python -m r1jax.export --workdir=/tmp/r1_zero --out=/tmp/my_model
    python -m r1jax.export --workdir=/tmp/r1_zero --out=my_model.npz

A folder has Hugging Face's format: config.json, safetensors, the tokenizer with
its chat template, generation_config.json; transformers and the servers built
on it load it. A file that ends in .npz is for `config.init_from`.
"""

from r1jax import interrupts
from r1jax import terminal

if __name__ == '__main__':  # before the imports, which take their time
  interrupts.install()
  terminal.secure()

# pylint: disable=wrong-import-position
import dataclasses
import os

from r1jax import command

if __name__ == '__main__':
  with command.reported():
    command.import_jax()

import jax

from r1jax import errors
from r1jax import models
from r1jax import workdir as workdir_lib
from r1jax.models import hf_export
from r1jax.models import packaged
from r1jax.parallel import backend
from r1jax.stages import model_source


def export(init_from: str, out: str, dtype: str | None = None) -> None:
  """Writes the model that `init_from` names, through this host's memory.

  Raises:
    ConfigError: names --workdir or --out.
  """
  if not out or os.path.lexists(out):
    raise errors.ConfigError(
        '--out', f'{out} exists already' if out else 'expected a path')
  source = model_source.find(init_from, '--workdir')
  with errors.at(init_from if source.kind == 'stage' else ''):
    config = source.model_config()
    config.check()
  cpu = jax.sharding.SingleDeviceSharding(jax.devices('cpu')[0])
  like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cpu),
      jax.eval_shape(models.build(config).init, jax.random.key(0)))
  params = source.load_params(config, like, cpu)
  if dtype is not None:
    cast = lambda path, x: x if path[-1].key == 'router_bias' else x.astype(
        dtype)
    params = jax.tree_util.tree_map_with_path(cast, params)
    config = dataclasses.replace(config, param_dtype=dtype)
  if out.endswith('.npz'):
    packaged.save_params(out, config, params)
    return
  hf_export.save_folder(out, config, params, source.released_ancestor(),
                        source.vocabulary(config.vocab), source.padding())


def main() -> None:
  parser = command.Parser(description=__doc__.partition('\n')[0])
  parser.add_argument(
      '--workdir', required=True,
      help='of a stage, or another model that config.init_from may name')
  parser.add_argument('--out', required=True,
                      help='the folder or .npz file to write')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'),
                      help='of the weights; left out: as the model has them')
  args = parser.parse_args()
  with command.reported():
    interrupts.begin()
    backend.check_environment()
    backend.check_devices()
    source, out = (
        workdir_lib.expanded(path, flag) for path, flag in (
            (args.workdir, '--workdir'), (args.out, '--out')))
    with errors.faults(out):
      export(source, out, args.dtype)
  terminal.say(f'written: {out}')


if __name__ == '__main__':
  main()
