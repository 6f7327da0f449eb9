"""What a valid configuration is: every rule that needs no model and no data.

`check` takes an experiment's ConfigDict and the number of devices, and raises a
`ConfigError` whose one line names the field, what is expected and what was
received. Bounds of single fields are declared with them (fields.py, and the
sections in experiments/); here are the rules between fields. Sections that an
experiment does not have are not checked.
"""

from collections.abc import Collection, Iterable, Mapping
import math
import re
from typing import Any

import ml_collections

from r1jax import errors
from r1jax import fields

MESH_AXES = ('data', 'fsdp', 'expert', 'tensor', 'context')
BATCH_AXES = MESH_AXES[:3]  # those that split a batch

_SPLIT = {  # logical axis: the field that a mesh axis must divide
    'embed': 'model.width', 'vocab': 'model.vocab', 'heads': 'model.heads',
    'kv_heads': 'model.kv_heads', 'mlp': 'model.mlp',
}

_NAME = re.compile(r'\w[\w-]*')
_WEIGHT = re.compile(r'(.*\.)?rewards\.(weights|tasks\.[^.]+)\.[^.]+')
_OF_TASK = re.compile(r'(.*\.)?rewards\.tasks\.[^.]+')


def flatten(config: Mapping[str, Any], prefix: str = '', *,
            empty: bool = False) -> dict[str, Any]:
  """{'rl.group': 4, ...}: the leaves of a nested config by dotted field.

  With `empty`, a section without fields is a leaf, too.
  """
  leaves = {}
  for name, value in config.items():
    section = isinstance(value, (Mapping, ml_collections.ConfigDict))
    if section and not (empty and not value):
      leaves |= flatten(value, f'{prefix}{name}.', empty=empty)
    else:
      leaves[prefix + name] = value
  return leaves


def section(config: ml_collections.ConfigDict, path: str
           ) -> ml_collections.ConfigDict:
  """The section at a dotted path; '' is the config itself."""
  for name in filter(None, path.split('.')):
    config = config[name]
  return config


def check_names(field: str, names: Iterable[str],
                taken: Collection[str] = ()) -> None:
  """Refuses a name that a user gave to a field of the section `config.<field>`.

  Every name that becomes a column, a metric, a file or a directory is checked
  here.

  Args:
    field: the section.
    names: of its fields.
    taken: what they cannot be, since something else has that name.

  Raises:
    ConfigError: a name is taken, or not of letters, digits, '_' and '-'.
  """
  for name in names:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
      raise errors.expected(
          field, "names of letters, digits, '_' and '-'", name)
    if name in taken:
      raise errors.ConfigError(
          f'{field}.{name}', 'the name is taken; give another')


def axis_names(entry: str | Iterable[str] | None) -> tuple[str, ...]:
  """The mesh axes in a rule or a PartitionSpec, for checks and shardings."""
  return (entry,) if isinstance(entry, str) else tuple(entry or ())


def mesh_sizes(mesh: Mapping[str, int], device_count: int) -> dict[str, int]:
  """The size of every mesh axis, the one given as -1 worked out."""
  for name in mesh:
    if name not in MESH_AXES:
      raise errors.ConfigError(
          f'mesh.{name}', 'no such axis'
          + errors.nearest(name, MESH_AXES, 'config.mesh.'))
  sizes = {name: mesh.get(name, 1) for name in MESH_AXES}
  free = [name for name, size in sizes.items() if size == -1]
  for name, size in sizes.items():
    if size < 1 and size != -1:
      raise errors.expected(
          f'mesh.{name}', 'a positive size, or -1 for the rest', size)
  if len(free) > 1:
    raise errors.expected(
        f'mesh.{free[1]}', f'one axis at -1 (mesh.{free[0]} is)', -1)
  fixed = math.prod(size for size in sizes.values() if size != -1)
  shape = ', '.join(f'{name}={size}' for name, size in sizes.items())
  if device_count % fixed or (not free and fixed != device_count):
    largest = max(sizes, key=sizes.get)
    raise errors.expected(
        f'mesh.{largest}', f'axes whose product {"divides" if free else "is"} '
        f'the {device_count} devices present', shape)
  if free:
    sizes[free[0]] = device_count // fixed
  return sizes


def check_fields(config: ml_collections.ConfigDict) -> None:
  """Raises `ConfigError` for a number that is none, or a value out of bounds.

  Numbers are those of all fields, also of the names and options that a user
  adds; bounds those of declared fields.
  """
  for name, value in flatten(config).items():
    if wrong := fields.unusable(value):
      raise errors.expected(name, *wrong)
    if _OF_TASK.fullmatch(name):
      raise errors.expected(name, 'weights by name', value)
    if _WEIGHT.fullmatch(name) and not (fields.is_number(value) and (
        not value or 1e-6 <= abs(value) <= 1e6)):
      raise errors.expected(
          name, '0, or a number of 1e-6 to 1e6 in size: beyond, the standard '
          'deviation of the rewards is not computed rightly', value)
  for name, field in fields.declared(config):
    if field.choices and field.get() is not None:
      errors.check_choice(name, field.get(), field.choices)
    if words := field.broken():
      raise errors.expected(name, words, field.get())


def check(config: ml_collections.ConfigDict, device_count: int) -> None:
  """Raises `ConfigError` for a value or combination that cannot run."""
  check_fields(config)
  leaves = flatten(config)
  sizes = mesh_sizes(config.get('mesh', {}), device_count)
  shards = sampled = _batch_parts((), sizes)
  if 'rules' in config:
    for more in ((), config.get('sampling_rules', ())):
      rules = (*config.rules, *more)
      _check_rules(leaves, rules, sizes)
      sampled = _batch_parts(rules, sizes)
  _check_multiples(leaves, shards, sampled)
  _check_length('lm.length', leaves.get('lm.length'), leaves)
  check_parts(config)
  _check_work(leaves)
  _check_overlong(leaves)
  _check_trees(leaves)
  if (leaves.get('lm.prompt_weight', 0.) is None
      and leaves.get('data.template') is not None):
    raise errors.expected('lm.prompt_weight', 'a number, for conversations '
                          '(config.data.template)', None)
  loss = leaves.get('preference.loss')
  if loss in ('pointwise', 'stepwise') and leaves.get('preference.margin'):
    raise errors.expected(
        'preference.margin', f'0, where config.preference.loss is {loss!r}: '
        'no response leads', leaves['preference.margin'])
  if 'rl.advantage' in leaves:
    _check_objective(leaves)
    _check_batch(leaves, _batch_parts(config.get('rules', ()), sizes))


def _check_multiples(leaves: dict[str, Any], shards: int, sampled: int) -> None:
  """What is cut into equal parts leaves no rest, also while sampling."""
  part = lambda field: leaves.get(field) or 1
  split = "mesh data*fsdp*expert, or sampling's 'batch',"
  spread = lambda field: (f'{split} / its gcd with {field}',
                          sampled // math.gcd(sampled, part(field)))
  for field, name, divisor in (
      ('lm.batch', 'lm.micro_batches * mesh data*fsdp*expert',
       part('lm.micro_batches') * shards),
      ('preference.batch', 'preference.micro_batches * mesh data*fsdp*expert',
       part('preference.micro_batches') * shards),
      ('rl.prompts', 'rl.mini_batches', part('rl.mini_batches')),
      ('rl.prompts', *spread('rl.group')),
      ('rl.in_flight', *spread('rl.group')),
      ('rl.prompts', 'mesh data*fsdp*expert, each with its own tree,',
       shards if 'search.simulations' in leaves else 1),
      ('eval.batch', *spread('eval.samples')), ('rl.slots', split, sampled)):
    if (leaves.get(field) or 0) % divisor:
      raise errors.expected(
          field, f'a multiple of {name} = {divisor}', leaves[field])


def _batch_parts(rules: Iterable, sizes: dict[str, int]) -> int:
  """The parts that a batch divides into, as sharding.Placement.batch_shards."""
  axes = {*BATCH_AXES, *axis_names(dict(rules).get('batch'))}
  return math.prod(sizes.get(axis, 1) for axis in axes)


def _check_rules(leaves: dict[str, Any], rules: Iterable,
                 sizes: dict[str, int]) -> None:
  """A mesh axis splits something, and what it splits it divides."""
  unused = {axis for axis, size in sizes.items() if size > 1}
  for rule in rules:
    if not _is_rule(rule):
      raise errors.expected(
          'rules', 'pairs of a logical axis and its mesh axes', rule)
    name, axes = rule[0], axis_names(rule[1])
    unused -= set(axes)
    parts = math.prod(sizes.get(axis, 1) for axis in axes)
    size = leaves.get(_SPLIT.get(name))
    if size and size % parts:
      raise errors.expected(
          f'mesh.{axes[-1]}', f'a divisor of {_SPLIT[name]} = {size}, '
          f'or a rule that leaves {name!r} whole', parts)
  for axis in sorted(unused):
    raise errors.expected(
        f'mesh.{axis}', '1: no rule of config.rules uses this axis, its '
        'devices would all do the same work', sizes[axis])


def _is_rule(rule: Any) -> bool:
  """Whether it is ('mlp', None), ('mlp', 'fsdp') or ('mlp', ('fsdp', ...))."""
  names = lambda x: isinstance(x, (list, tuple)) and all(
      isinstance(name, str) for name in x)
  return isinstance(rule, (list, tuple)) and len(rule) == 2 and (
      isinstance(rule[0], str)
      and (rule[1] is None or isinstance(rule[1], str) or names(rule[1])))


def _check_length(field: str, length: int | None, leaves: dict) -> None:
  max_len = leaves.get('model.max_len')
  if None not in (length, max_len) and length > max_len:
    raise errors.expected(field, f'at most model.max_len = {max_len}', length)


def check_parts(config: ml_collections.ConfigDict) -> None:
  """Refuses a collection, tests or a pipeline without one part."""
  for name in ('collect', 'tests', 'stages'):
    if name in config and not config[name]:
      raise errors.ConfigError(
          name, 'expected at least one part, received none: there is nothing '
          'to do')


def _check_work(leaves: dict[str, Any]) -> None:
  """Refuses a run that has nothing to do, and would end well."""
  if (leaves.get('stage'), leaves.get('steps')) == ('lm', 0) and not (
      leaves.get('eval.split')):
    raise errors.expected(
        'steps', 'at least 1, or an evaluation (config.eval.split): else there '
        'is nothing to do', 0)
  if (leaves.get('distill.weight') == 1
      and leaves['distill.init_from'] == leaves.get('init_from') is not None):
    raise errors.expected(
        'distill.init_from', 'another model than config.init_from, where '
        'config.distill.weight is 1: a model does not diverge from itself',
        leaves['distill.init_from'])
  for section in ('lora', 'critic.lora'):
    targets = leaves.get(f'{section}.targets', ())
    if leaves.get(f'{section}.rank') and not (
        targets and all(isinstance(pattern, str) for pattern in targets)):
      raise errors.expected(
          f'{section}.targets', 'at least one pattern of projections, such as '
          f"'attention/*', where config.{section}.rank is not 0", targets)


def _check_overlong(leaves: dict[str, Any]) -> None:
  """The ramp of the overlong penalty is within a response, of a test too."""
  tokens = leaves.get('rl.response_tokens')
  for field, cache in leaves.items():
    if (field.endswith('rewards.overlong_cache_tokens')
        and None not in (cache, tokens) and cache > tokens):
      raise errors.expected(
          field, f'at most rl.response_tokens = {tokens}', cache)


def _check_trees(leaves: dict[str, Any]) -> None:
  """Refuses settings of plain samples that a tree search does not use."""
  for field, unset in (('rl.slots', None), ('rl.cpu_threads', 1)):
    if leaves.get('search.simulations') and leaves.get(field, unset) != unset:
      raise errors.expected(
          field, f'{unset}, where config.search.simulations is not 0: trees do '
          'not use it', leaves[field])


def _check_objective(leaves: dict[str, Any]) -> None:
  if leaves.get('steps') is None and 'steps' in leaves:
    raise errors.expected(
        'steps', 'a number: prompts are drawn without end', None)
  critic = any(field.startswith('critic.') for field in leaves)
  if critic != (leaves['rl.advantage'] == 'gae'):
    raise errors.expected(
        'rl.advantage', "'gae', since there is a section config.critic"
        if critic else "'grpo' or 'rloo', or a section config.critic",
        leaves['rl.advantage'])
  if leaves['rl.group'] < 2 and (
      not critic or leaves.get('rl.sampling_rounds')):
    raise errors.expected(
        'rl.group', 'at least 2: in a group of one there is nothing to compare '
        'with, its advantage is always 0', leaves['rl.group'])
  if leaves.get('rl.process') is not None:
    for field, needed in (('rl.advantage', 'grpo'), ('rl.sampling_rounds', 0)):
      if leaves.get(field) != needed:
        raise errors.expected(
            field, f'{needed!r} with config.rl.process', leaves.get(field))
  if leaves.get('rl.kl_target'):
    for field, words, holds in (
        ('rl.kl_in', "'reward'", leaves.get('rl.kl_in') == 'reward'),
        ('rl.kl', 'an estimator', leaves.get('rl.kl') != 'none'),
        ('rl.beta', 'more than 0', leaves['rl.beta'] > 0)):
      if not holds:
        raise errors.expected(
            field, f'{words}, where config.rl.kl_target adapts beta',
            leaves.get(field))
  for field, unset in (('rl.ref_every_steps', 0), ('rl.measure_kl', False)):
    # measure_kl gives a reference where beta is 0, but not without a KL.
    without = leaves.get('rl.kl') == 'none' or not (
        leaves['rl.beta'] or leaves.get('rl.measure_kl'))
    if without and leaves.get(field, unset) != unset:
      raise errors.expected(
          field, f'{unset}: there is no reference, since config.rl.kl is '
          f'{leaves.get("rl.kl")!r} and config.rl.beta {leaves["rl.beta"]}',
          leaves[field])
  _check_surrogate(leaves)
  if leaves.get('rl.kl') == 'k1' and leaves.get('rl.kl_in') == 'loss':
    raise errors.expected(
        'rl.kl', "k2 or k3 in the loss, or rl.kl_in='reward': the gradient of "
        'k1 has expectation zero on-policy', 'k1')
  if leaves.get('rl.top_p', 1.) < 1 and not leaves.get('rl.top_k'):
    raise errors.expected(
        'rl.top_p', '1, or a config.rl.top_k: an update needs all tokens that '
        'were kept', leaves['rl.top_p'])
  _check_partial(leaves)
  lengths = leaves.get('rl.prompt_tokens', 0), leaves['rl.response_tokens']
  _check_length('rl.response_tokens (+ rl.prompt_tokens)', sum(lengths), leaves)


def _check_partial(leaves: dict[str, Any]) -> None:
  """Settings that partial rollouts do not have, or that are theirs alone."""
  in_flight, prompts = leaves.get('rl.in_flight'), leaves['rl.prompts']
  if leaves.get('rl.partial_tokens') is None:
    if in_flight is not None:
      raise errors.expected(
          'rl.in_flight', 'None, or a config.rl.partial_tokens', in_flight)
    return
  for field, unset in (('rl.sampling_rounds', 0), ('rl.replay_routing', False),
                       ('rl.score_while_sampling', False)):
    if leaves.get(field, unset) != unset:
      raise errors.expected(
          field, f'{unset} with config.rl.partial_tokens', leaves[field])
  if in_flight is not None and in_flight < prompts:
    raise errors.expected(
        'rl.in_flight', f'at least rl.prompts = {prompts}', in_flight)


def _check_surrogate(leaves: dict[str, Any]) -> None:
  """Settings that the chosen correction or surrogate does not have."""
  mode = leaves.get('rl.correction')
  for field, unset, used in (
      ('rl.correction_cap', 2.0, mode),
      ('rl.correction_floor', 0.0, mode and 'mask' in mode)):
    if not used and leaves.get(field, unset) != unset:
      raise errors.expected(
          field, f'{unset} where config.rl.correction is {mode!r}',
          leaves[field])
  if leaves.get('rl.surrogate') == 'cispo' and (
      leaves['rl.dual_clip'] is not None):
    raise errors.expected(
        'rl.dual_clip', "None, where config.rl.surrogate is 'cispo': its "
        'weight is clipped already', leaves['rl.dual_clip'])


def _check_batch(leaves: dict[str, Any], shards: int) -> None:
  """Prompts → mini-batches (one update each) → micro-batches of responses."""
  prompts, group = leaves['rl.prompts'], leaves['rl.group']
  known = leaves.get('data.num_prompts')
  if known is not None and known < prompts:
    raise errors.expected(
        'data.num_prompts', f'at least rl.prompts = {prompts}', known)
  mini = prompts * group // leaves.get('rl.mini_batches', 1)
  micro, packed = leaves.get('rl.micro_batch'), leaves.get('rl.packed_rows')
  split = "mesh data*fsdp*expert, or the rules' 'batch'"
  if packed is not None:
    if packed > group:
      raise errors.expected(
          'rl.packed_rows', f'at most rl.group = {group}', packed)
    if micro is None or micro % (packed * shards):
      raise errors.expected(
          'rl.micro_batch', f'a multiple of rl.packed_rows * {split}, = '
          f'{packed * shards}', micro)
    micro = mini  # rows are made of all its responses
  micro = micro or mini
  if mini % micro:
    raise errors.expected(
        'rl.micro_batch', 'a divisor of the responses of a mini-batch, '
        f'rl.prompts * rl.group / rl.mini_batches = {mini}', micro)
  if micro % shards:
    field = 'rl.mini_batches' if micro == mini else 'rl.micro_batch'
    raise errors.expected(
        field, f'responses in each, here {micro}, that divide over {split} = '
        f'{shards}', leaves[field])
