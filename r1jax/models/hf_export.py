"""Export to Hugging Face folders, which transformers loads.

`python -m r1jax.export` is the command.
"""

import contextlib
import json
import pathlib
import re
from typing import Any

import jax
import numpy as np

from r1jax import errors
from r1jax.data.vocabs import base
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import hf_config
from r1jax.models import hf_layout
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.training import files
from r1jax.types import Params

_FILE_BYTES = 4 << 30
_IDS = ('bos_token_id', 'eos_token_id', 'pad_token_id')


def save_folder(out: str, config: architecture.Config, params: Params,
                source: str | None = None, vocab: base.Vocab | None = None,
                padding: int | None = None, *,
                file_bytes: int = _FILE_BYTES) -> None:
  """Writes config.json and safetensors files; every process must call it.

  Args:
    out: a folder that does not exist yet.
    config: of the model.
    params: its parameters, written in their own dtype.
    source: the folder or GGUF file that the model came from; its config.json
      is kept if it describes the same architecture.
    vocab: the model's vocabulary, saved beside it if given.
    padding: of a reward model, the end token that its scores are not read at.
    file_bytes: most bytes of tensors in a file, and in memory at a time.

  Raises:
    ConfigError: `out` exists, or transformers has no such architecture.
  """
  target = pathlib.Path(out)
  if target.exists():
    raise errors.ConfigError(
        '--out', f'expected a folder that does not exist yet, received {out}')
  fields = _fields(config, params, source, vocab, padding)
  target.parent.mkdir(parents=True, exist_ok=True)
  with (files.write_whole(target) if distributed.is_main()
        else contextlib.nullcontext(target)) as part:
    if distributed.is_main():
      part.mkdir()
      _write_json(part / 'config.json', fields)
      if vocab is not None:
        vocab.save(str(part))
        _complete(part / 'generation_config.json', fields)
    _write_tensors(part, config, params, file_bytes)


def _fields(config: architecture.Config, params: Params, source: str | None,
            vocab: base.Vocab | None, padding: int | None) -> dict[str, Any]:
  """The config.json."""
  fields = hf_config.to_json(config)
  if source is not None:
    if architecture.difference(hf.read_config(source), config) is None:
      names = {key: fields[key] for key in ('model_type', 'architectures')}
      fields = hf.read_fields(source) | names  # it may lack one
  if config.scalar:
    fields = hf_config.to_scoring(fields, float(params['head']['offset']))
  drop = ('quantization_config', 'torch_dtype', 'auto_map', 'num_mtp_layers',
          'transformers_weights')  # the files have names of their own
  fields = {key: value for key, value in fields.items() if key not in drop}
  if config.moe:
    fields['num_nextn_predict_layers'] = 0  # not imported, see hf.py
  # For an id that is left out transformers has one of its own.
  fields = dict.fromkeys(_IDS) | fields | _ids(vocab) | {
      'dtype': params['embedding'].dtype.name}
  ends = fields['eos_token_id']
  if config.scalar and fields['pad_token_id'] in (
      ends if isinstance(ends, list) else [ends]):
    fields['pad_token_id'] = padding  # at which no score is read
  return fields


def _ids(vocab: base.Vocab | None) -> dict[str, int | list[int]]:
  """The special tokens that a vocabulary has, as config.json names them."""
  if vocab is None:
    return {}
  ends = list(vocab.eos_ids)
  found = dict(eos_token_id=ends if len(ends) > 1 else ends[0])
  if vocab.bos_id is not None:
    found['bos_token_id'] = vocab.bos_id
  if 'pad_token' in vocab.tokens:  # else the end token fills rows
    found['pad_token_id'] = vocab.pad_id
  return found


def _complete(path: pathlib.Path, fields: dict[str, Any]) -> None:
  """Adds the ids of config.json that a generation_config.json leaves out."""
  settings = json.loads(path.read_text('utf-8'))
  _write_json(path, {key: fields[key] for key in _IDS} | settings)


def _write_tensors(folder: pathlib.Path, config: architecture.Config,
                   params: Params, file_bytes: int) -> None:
  """Writes files of at most `file_bytes`, and the index of their tensors."""
  import safetensors.numpy  # pylint: disable=g-import-not-at-top
  shards = _shards(config, params, file_bytes)
  leaves = hf_layout.leaves(config)
  file_of, total = {}, 0
  for number, members in enumerate(shards, 1):
    title = 'model.safetensors' if len(shards) == 1 else (
        f'model-{number:05}-of-{len(shards):05}.safetensors')
    tensors = {}
    for name, key, at in members:
      entry = sharding.to_host(_get(params, key)[at])
      tensors[name] = leaves[key].to_hf(entry)
    file_of |= dict.fromkeys(tensors, title)
    total += sum(x.nbytes for x in tensors.values())
    if distributed.is_main():
      try:
        safetensors.numpy.save_file(
            tensors, folder / title, metadata={'format': 'pt'})
      except safetensors.SafetensorError as error:
        if not (number := re.search(r'\(os error (\d+)\)', str(error))):
          raise
        raise OSError(int(number[1]), str(error), str(folder)) from error
      (folder / title).chmod(0o644)  # safetensors lets only the owner read
  if len(shards) > 1 and distributed.is_main():
    _write_json(folder / 'model.safetensors.index.json', {
        'metadata': {'total_size': total}, 'weight_map': file_of})


# A tensor's name, its parameter's path, and its indices in the stacked axes.
_Member = tuple[str, str, tuple[int, ...]]


def _shards(config: architecture.Config, params: Params, file_bytes: int
            ) -> list[list[_Member]]:
  """The tensors of each file."""
  shards, size = [[]], 0
  for name, key, at in _in_order(config, params):
    param = _get(params, key)
    width = param.nbytes // int(np.prod(param.shape[:len(at)]))
    if shards[-1] and size + width > file_bytes:
      shards.append([])
      size = 0
    shards[-1].append((name, key, at))
    size += width
  return shards


def _in_order(config: architecture.Config, params: Params) -> list[_Member]:
  """Every tensor, layer after layer."""
  members = [
      (leaf.hf_name(at), key, at)
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
