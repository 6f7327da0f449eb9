"""A stage of each kind in minutes: a few steps of few and short samples.

What they learn is nothing; they are there to be run by one process and by
several (tests/parallel/test_processes.py).
"""

from experiments import common
from experiments import distill
from experiments import evaluate
from experiments import ppo
from experiments import preferences
from experiments import r1_zero
from experiments import rejection_sampling
from experiments import reward_model
from experiments import sections
from experiments import sft

_RL = {'rl.prompts': 8, 'rl.group': 4, 'rl.micro_batch': 8,
       'rl.response_tokens': 24, 'rl.sample_chunk': 24, 'rl.logp_chunk': 32}
# By a smaller epsilon, AdamW takes a step of full length along a gradient that
# is rounding error, and each split of the devices has its own.
_EPS = 1e-5
_LESS = {
    'steps': 3, 'epochs': None, 'checkpoint.every_steps': 1,
    'optim.schedule': 'constant', 'optim.warmup_steps': 0, 'optim.eps': _EPS,
    'critic.optim.warmup_steps': 0, 'critic.optim.eps': _EPS,
    'eval.problems': 8, 'eval.batch': 8, 'eval.samples': 1,
    'lm.batch': 8, 'lm.length': 128, 'preference.batch': 4,
    'preference.length': 512, 'data.num_prompts': 64, **_RL}
_PAIRS = 'jsonl:{preferences}/preferences.jsonl'


def get_config(arg: str = 'all') -> common.ConfigDict:
  return common.variant(__file__, arg, {
      'all': every, 'sft': lambda: _small(sft.mini()),
      'zero': lambda: _small(r1_zero.mini())})


def every() -> common.ConfigDict:
  """The stages as a pipeline, some of which start from others' outputs."""
  rewarded = reward_model.mini('{sft}', _PAIRS)
  rewarded.data.split, rewarded.eval.split = 'train[:-4]', 'train[-4:]'
  collected = common.base('collect', collect=dict(
      chosen=sections.part('jsonl:{samples}/kept-*.jsonl'),
      general=sections.part('mini_general', rows=16)))
  stages = dict(
      sft=sft.mini(), zero=r1_zero.mini(),
      preferences=preferences.mini('mini'), reward_model=rewarded,
      ppo=ppo.mini('{sft}', '{reward_model}', critic='{reward_model}'),
      samples=rejection_sampling.mini(), collected=collected,
      distilled=distill.mini(
          'jsonl:{collected}/collected.jsonl', 'forward', 'mini'),
      evaluated=evaluate.mini())
  for stage in stages.values():
    _small(stage)
  stages['samples'].init_from = '{zero}'
  stages['samples'].keep.update(
      min_accuracy=0., format=False, max_repetition=None)
  stages['evaluated'].init_from = '{distilled}'
  return common.pipeline(None, stages)


def _small(config: common.ConfigDict) -> common.ConfigDict:
  for field, value in _LESS.items():
    *sections_, name = field.split('.')
    part = config
    for section in sections_:
      part = part.get(section, {})
    if name in part:
      part[name] = value
  for test in config.get('tests', {}).values():
    test.problems, test.samples = 8, 1
  return config
