"""Which fields a resumed run may change, and what older configs lacked."""

from collections.abc import Mapping
import fnmatch
import json
from typing import Any

from r1jax import config as config_lib

# What a resumed run may change; a parameter sees nothing of it but rounding.
_CHANGEABLE = ('name', 'distributed', 'hang_seconds', 'plan.*', 'log.*',
               'checkpoint.*', 'rules', 'sampling_rules',
               'rl.score_while_sampling', 'rl.micro_batch', 'rl.packed_rows',
               'rl.cpu_threads')

# What stages of a kind once had and never read, as patterns. Runs that had them
# resume without; any other field that is gone is a difference.
_SAMPLED = ('eval.batch', 'eval.samples', 'eval.temperature', 'eval.top_k',
            'eval.top_p')
_TRAINED = ('steps', 'epochs', 'lora.*', 'optim.*')
RETIRED = {
    'lm': (*_SAMPLED, 'eval.shown'),
    'preference': _SAMPLED,
    'rl': ('epochs', 'critic.optim.max_skipped_steps'),
    'sample': (*_TRAINED, 'eval.*'),
    'collect': (*_TRAINED, 'eval.*', 'rules'),
    'evaluate': (
        *_TRAINED, 'eval.problems', 'eval.every_steps', 'rl.prompts',
        'rl.group', 'rl.temperature', 'rl.top_k', 'rl.top_p',
        'tests.*.data.split', 'tests.*.data.num_prompts'),
}

RENAMED = {'measure': 'evaluate'}  # kinds of stages

# Fields that a config of an older version lacks, and what was done then, if a
# resumed run may not change them.
ADDED = {
    **{f'{at}optim.{name}': value for at in ('', 'critic.') for name, value in (
        ('master_weights', False), ('first_moment', 'float32'),
        ('second_moment', 'float32'), ('offload', False))},
    'rewards.code.seconds': 5.0, 'rewards.code.total_seconds': 30.0,
    'rewards.code.memory_mib': 512, 'rewards.code.output_kib': 256,
    'rewards.code.unsafe_subprocess': False, 'rl.replay_routing': False,
    'rl.correction_cap': 2.0, 'rl.correction_floor': 0.0,
    'rl.ratio': 'token', 'rl.surrogate': 'clip', 'rl.entropy_bonus': 0.0,
    'rl.mask_truncated': False, 'rewards.length_rule': 'kimi',
    'rewards.length_slope': 0.0003, 'rewards.weights.length_rule': 0.0,
    'rl.top_k': 0, 'rl.top_p': 1.0}


def changed(old: Mapping[str, Any], new: Mapping[str, Any],
            changeable: tuple[str, ...] = ()) -> list[str]:
  """The fields in which `new` may not continue a run begun under `old`.

  Its name, the rules of what lies where, and figures of logging and
  checkpointing may change, what no stage of its kind ever read (RETIRED) may be
  gone, and `steps` may grow unless a cosine schedule has already been taken
  along the shorter run. `changeable` are patterns of more fields.
  """
  old, new = (json.loads(json.dumps(config_lib.flatten(c))) for c in (old, new))
  old['stage'] = RENAMED.get(old.get('stage'), old.get('stage'))
  retired = RETIRED.get(new.get('stage'), ())
  schedules = new.get('optim.schedule'), new.get('critic.optim.schedule')
  found = []
  for field in sorted(old.keys() | new.keys()):
    was, now = old.get(field, ADDED.get(field)), new.get(field)
    longer = (field == 'steps' and 'cosine' not in schedules
              and was is not None and now is not None and now > was)
    free = (*_CHANGEABLE, *changeable, *(() if field in new else retired))
    same = was == now or all(value in ('', None) for value in (was, now))
    if not same and not longer and not any(
        fnmatch.fnmatchcase(field, pattern) for pattern in free):
      found.append(f'config.{field} ({was!r} there, {now!r} here)')
  return found
