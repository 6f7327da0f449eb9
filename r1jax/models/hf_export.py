"""Our parameters as a Hugging Face folder, which transformers and servers load.

`python -m r1jax.export` is the command.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import hf_config
from r1jax.models import hf_layout
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.training import files
from r1jax.types import Params

_FILE_BYTES = 4 << 30


def save_folder(out: str, config: architecture.Config, params: Params,
         source: str | None = None, vocab=None, *,
         file_bytes: int = _FILE_BYTES) -> None:
  """Writes config.json and safetensors files; all processes must ask.

  Args:
    out: a folder that does not exist yet.
    config: of the model.
    params: its parameters, written in their own dtype.
    source: the folder or GGUF file that the model came from, whose
      config.json is kept as far as it says the same.
    vocab: data.vocab_base.Vocab, saved beside it if there is one.
    file_bytes: of tensors in a file, at most, and in memory at a time.

  Raises:
    ConfigError: `out` exists, or transformers has no such architecture.
  """
  target = pathlib.Path(out)
  if target.exists():
    raise errors.ConfigError(
        f'--out={out}', 'expected a folder that does not exist yet')
  fields = _fields(config, params, source)
  target.parent.mkdir(parents=True, exist_ok=True)
  with (files.write_whole(target) if distributed.is_main()
        else contextlib.nullcontext(target)) as part:
    if distributed.is_main():
      part.mkdir()
      _write_json(part / 'config.json', fields)
      if vocab is not None:
        vocab.save(str(part))
    _write_tensors(part, config, params, file_bytes)


def _fields(config, params, source) -> dict[str, Any]:
  fields = hf_config.to_json(config)
  if source is not None:
    kept = hf.fields(source)
    computed = {key: getattr(config, key) for key in architecture.FREE}
    if dataclasses.replace(hf.read_config(source), **computed) == config:
      fields = kept
  if config.scalar:
    fields = hf_config.scoring(fields, float(params['head']['offset']))
  drop = ('quantization_config', 'torch_dtype', 'auto_map')
  fields = {key: value for key, value in fields.items() if key not in drop}
  if 'num_nextn_predict_layers' in fields:
    fields['num_nextn_predict_layers'] = 0  # they are not read
  return fields | {'dtype': params['embedding'].dtype.name}


def _write_tensors(folder, config, params, file_bytes):
  """Fills files of `file_bytes` and writes the index that names them."""
  import safetensors.numpy  # pylint: disable=g-import-not-at-top
  shards = _files(config, params, file_bytes)
  leaves = hf_layout.leaves(config)
  where, total = {}, 0
  for number, members in enumerate(shards, 1):
    title = 'model.safetensors' if len(shards) == 1 else (
        f'model-{number:05}-of-{len(shards):05}.safetensors')
    tensors = {}
    for name, key, at in members:
      entry = sharding.to_host(_get(params, key)[at])
      tensors[name] = leaves[key].theirs(entry)
    where |= dict.fromkeys(tensors, title)
    total += sum(x.nbytes for x in tensors.values())
    if distributed.is_main():
      safetensors.numpy.save_file(
          tensors, folder / title, metadata={'format': 'pt'})
      (folder / title).chmod(0o644)  # it made the file its owner's alone
  if len(shards) > 1 and distributed.is_main():
    _write_json(folder / 'model.safetensors.index.json', {
        'metadata': {'total_size': total}, 'weight_map': where})


def _files(config, params, file_bytes) -> list[list[tuple]]:
  """Which tensors go into each file: (name, our path, place in the stack)."""
  shards, size = [[]], 0
  for name, key, at in _in_order(config, params):
    one = _get(params, key)
    width = one.nbytes // int(np.prod(one.shape[:len(at)]))
    if shards[-1] and size + width > file_bytes:
      shards.append([])
      size = 0
    shards[-1].append((name, key, at))
    size += width
  return shards


def _in_order(config, params) -> Iterator[tuple]:
  """Every tensor, layer after layer."""
  members = [
      (leaf.tensor(at), key, at)
      for key, leaf in hf_layout.leaves(config).items()
      for at in np.ndindex(_get(params, key).shape[:leaf.stacked])]
  layer = lambda name: int(name.split('.')[2]) if '.layers.' in name else -1
  return sorted(members, key=lambda member: layer(member[0]))


def _get(params: Params, key: str) -> jax.Array:
  for part in key.split('/'):
    params = params[part]
  return params


def _write_json(path: pathlib.Path, value: Any) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n', 'utf-8')
