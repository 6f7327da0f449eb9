"""What a valid configuration is: every rule that needs no model and no data.

Enters an experiment's ConfigDict and the number of devices; leaves nothing, or
a `ConfigError` whose one line names the field, what it expects and what it
got. Sections an experiment does not have are not checked.
"""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

MESH_AXES = ('data', 'fsdp', 'expert', 'tensor', 'context')

CHOICES = {
    'vocab.kind': ('sentencepiece', 'huggingface'),
    'model.remat': ('none', 'full', 'dots'),
    'model.dtype': ('float32', 'bfloat16'),
    'model.param_dtype': ('float32', 'bfloat16'),
    'rl.advantage': ('grpo', 'rloo'),
    'rl.std': ('population', 'sample', 'none'),
    'rl.aggregate': ('sequence_mean', 'token_mean', 'constant'),
    'rl.kl': ('none', 'k1', 'k2', 'k3'),
    'rl.kl_in': ('loss', 'reward'),
    'optim.schedule': ('constant', 'cosine'),
}

LEAST = {  # field: the least value it may hold
    'steps': 0,
    'model.layers': 1, 'model.width': 1, 'model.heads': 1,
    'model.kv_heads': 1, 'model.vocab': 2, 'model.max_len': 2,
    'lm.batch': 1, 'lm.length': 2,
    'rl.prompts': 1, 'rl.prompt_tokens': 1, 'rl.response_tokens': 1,
    'rl.mini_batches': 1, 'rl.micro_batch': 1, 'rl.epochs': 1,
    'rl.beta': 0, 'rl.ref_every_steps': 0, 'rl.overlong_cache_tokens': 0,
    'rl.sample_chunk': 1, 'rl.logp_chunk': 1,
    'optim.lr': 0, 'optim.warmup_steps': 0, 'optim.weight_decay': 0,
    'optim.clip_norm': 0, 'optim.final_fraction': 0, 'optim.b1': 0,
    'optim.b2': 0, 'optim.max_skipped_steps': 1,
    'checkpoint.every_steps': 1, 'checkpoint.keep': 1,
    'eval.every_steps': 0, 'eval.problems': 0, 'eval.temperature': 0,
    'log.rollouts_every_steps': 0,
    'rewards.workers': 1,
}

ABOVE = {  # field: the value it must exceed
    'rl.temperature': 0, 'rl.clip_low': 0, 'rl.clip_high': 0,
    'optim.eps': 0, 'rewards.timeout_seconds': 0,
}

BELOW = {'optim.b1': 1, 'optim.b2': 1}  # field: the value it must not reach

# What a resumed run may change: none of it reaches a parameter.
CHANGEABLE = ('log.', 'checkpoint.', 'distributed')


class ConfigError(ValueError):
  """A configuration that cannot run; its message is shown without a trace."""


def error(field: str, expected: str, received: Any) -> ConfigError:
  return ConfigError(
      f'config.{field}: expected {expected}, received {received!r}')


def nearest(word: str, choices: Iterable[str], prefix: str = '') -> str:
  """'; did you mean X?' for the choice nearest to `word`, else a short list."""
  choices = [str(choice) for choice in choices]
  few = len(choices) <= 12
  found = difflib.get_close_matches(word, choices, 1, 0.5 if few else 0.)
  if found:
    return f'; did you mean {prefix}{found[0]}?'
  return '; valid: ' + ', '.join(prefix + choice for choice in choices)


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'rl.group': 4, ...}: the leaves of a nested config by dotted field."""
  leaves = {}
  for name, value in config.items():
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
      leaves |= flatten(value, f'{prefix}{name}.')
    else:
      leaves[prefix + name] = value
  return leaves


def mesh_sizes(mesh: Mapping[str, int], device_count: int) -> dict[str, int]:
  """The size of every mesh axis, the one given as -1 worked out."""
  for name in mesh:
    if name not in MESH_AXES:
      raise ConfigError(f'config.mesh.{name}: no such axis'
                        + nearest(name, MESH_AXES, 'config.mesh.'))
  sizes = {name: mesh.get(name, 1) for name in MESH_AXES}
  free = [name for name, size in sizes.items() if size == -1]
  for name, size in sizes.items():
    if size < 1 and size != -1:
      raise error(f'mesh.{name}', 'a positive size, or -1 for the rest', size)
  if len(free) > 1:
    raise error(f'mesh.{free[1]}', f'one axis at -1 (mesh.{free[0]} is)', -1)
  fixed = math.prod(size for size in sizes.values() if size != -1)
  shape = ', '.join(f'{name}={size}' for name, size in sizes.items())
  if device_count % fixed or (not free and fixed != device_count):
    largest = max(sizes, key=sizes.get)
    raise error(f'mesh.{largest}',
                f'axes whose product {"divides" if free else "is"} the '
                f'{device_count} devices present', shape)
  if free:
    sizes[free[0]] = device_count // fixed
  return sizes


def check(config: ml_collections.ConfigDict, device_count: int) -> None:
  """Raises `ConfigError` for a value or combination that cannot run."""
  leaves = flatten(config)
  for field, choices in CHOICES.items():
    value = leaves.get(field)
    if value is not None and value not in choices:
      raise ConfigError(f'config.{field}: {value!r} is not a choice'
                        + nearest(str(value), choices))
  numbers = {field: value for field, value in leaves.items()
             if isinstance(value, (int, float))}
  for field, least in LEAST.items():
    if field in numbers and not numbers[field] >= least:
      raise error(field, f'at least {least}', numbers[field])
  for field, bound in ABOVE.items():
    if field in numbers and not numbers[field] > bound:
      raise error(field, f'more than {bound}', numbers[field])
  for field, bound in BELOW.items():
    if field in numbers and not numbers[field] < bound:
      raise error(field, f'less than {bound}', numbers[field])
  sizes = mesh_sizes(config.get('mesh', {}), device_count)
  shards = sizes['data'] * sizes['fsdp']
  _check_model(leaves, sizes['tensor'])
  _check_lm(leaves, shards)
  if 'rl' in config:
    _check_objective(leaves)
    _check_batch(leaves, shards)


def _check_model(leaves: dict[str, Any], tensor: int) -> None:
  heads = leaves.get('model.heads')
  kv_heads = leaves.get('model.kv_heads') or heads
  if heads is None:  # a preset, whose fields the model itself checks
    return
  if heads % kv_heads:
    raise error('model.kv_heads', f'a divisor of model.heads = {heads}',
                kv_heads)
  if heads % tensor:
    raise error('mesh.tensor', f'a divisor of model.heads = {heads}', tensor)
  if kv_heads % tensor and tensor % kv_heads:
    raise error('mesh.tensor',
                f'a divisor or multiple of model.kv_heads = {kv_heads}', tensor)
  mlp = leaves.get('model.mlp')
  if mlp and mlp % tensor:
    raise error('mesh.tensor', f'a divisor of model.mlp = {mlp}', tensor)


def _check_lm(leaves: dict[str, Any], shards: int) -> None:
  batch, length = leaves.get('lm.batch'), leaves.get('lm.length')
  if batch is not None and batch % shards:
    raise error('lm.batch', f'a multiple of mesh data*fsdp = {shards}', batch)
  _check_length('lm.length', length, leaves)


def _check_length(field: str, length: int | None, leaves: dict) -> None:
  max_len = leaves.get('model.max_len')
  if None not in (length, max_len) and length > max_len:
    raise error(field, f'at most model.max_len = {max_len}', length)


def _check_objective(leaves: dict[str, Any]) -> None:
  if leaves['rl.group'] < 2:
    raise error('rl.group', 'at least 2: a group of one has no one to compare '
                'with, its advantage is always 0', leaves['rl.group'])
  if leaves.get('rl.kl') == 'k1' and leaves.get('rl.kl_in') == 'loss':
    raise error('rl.kl', "k2 or k3 in the loss, or rl.kl_in='reward': the "
                'gradient of k1 has expectation zero on-policy', 'k1')
  for field, unset in (('rl.top_k', 0), ('rl.top_p', 1.0)):
    if leaves.get(field) not in (None, unset):
      raise error(field, f'{unset} while training: a truncated sampler is not '
                  'the policy whose ratio the loss takes', leaves[field])
  lengths = leaves.get('rl.prompt_tokens', 0), leaves['rl.response_tokens']
  _check_length('rl.response_tokens (+ rl.prompt_tokens)', sum(lengths), leaves)
  if leaves.get('rl.overlong_cache_tokens', 0) > lengths[1]:
    raise error('rl.overlong_cache_tokens', 'at most rl.response_tokens = '
                f'{lengths[1]}', leaves['rl.overlong_cache_tokens'])


def _check_batch(leaves: dict[str, Any], shards: int) -> None:
  """Prompts → mini-batches (one update each) → micro-batches of responses."""
  prompts, group = leaves['rl.prompts'], leaves['rl.group']
  mini_batches = leaves.get('rl.mini_batches', 1)
  micro = leaves.get('rl.micro_batch')
  if prompts % mini_batches:
    raise error('rl.prompts', f'a multiple of rl.mini_batches = {mini_batches}',
                prompts)
  mini = prompts // mini_batches
  micro = mini * group if micro is None else micro
  if micro % group and group % micro:
    raise error('rl.micro_batch',
                f'a multiple or divisor of rl.group = {group}', micro)
  if (mini * group) % micro:
    raise error('rl.micro_batch', 'a divisor of the responses of a mini-batch, '
                f'rl.prompts * rl.group / rl.mini_batches = {mini * group}',
                micro)
  micro_prompts = max(1, micro // group)
  if micro_prompts % shards:
    raise error('rl.micro_batch', 'prompts (rl.micro_batch / rl.group = '
                f'{micro_prompts}) that divide over mesh data*fsdp = {shards}',
                micro)


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """The fields in which `new` may not continue a run begun under `old`.

  Figures of logging and checkpointing may change, and `steps` may grow unless
  a cosine schedule has already been taken along the shorter run.
  """
  old, new = (json.loads(json.dumps(flatten(c))) for c in (old, new))
  fields = []
  for field in sorted(old.keys() | new.keys()):
    was, now = old.get(field), new.get(field)
    longer = (field == 'steps' and new.get('optim.schedule') != 'cosine'
              and was is not None and now is not None and now > was)
    if was != now and not longer and not field.startswith(CHANGEABLE):
      fields.append(f'config.{field} ({was!r} there, {now!r} here)')
  return fields
