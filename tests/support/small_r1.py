"""R1's recipe in minutes: every stage of r1.py:mini, few and short samples.

What it learns is nothing; it is there to be interrupted (test_r1_kills.py).
"""

from experiments import common
from experiments import r1

_LESS = {'steps': 2, 'data.num_prompts': 16, 'rl.prompts': 8,
         'eval.problems': 8, 'eval.batch': 8, 'rl.micro_batch': 16}


def get_config(arg: str = 'small') -> common.ConfigDict:
  return common.variant(__file__, arg, {'small': small})


def small() -> common.ConfigDict:
  config = r1.mini()
  for name, stage in config.stages.items():
    for field, most in _LESS.items():
      section, _, key = field.rpartition('.')
      part = stage.get(section) if section else stage
      if part is not None and isinstance(part.get(key), int):
        part[key] = min(part[key], most)
    if 'checkpoint' in stage:
      stage.checkpoint.every_steps = 1
    if stage.stage == 'rl':
      stage.rl.group = 4
      stage.optim.warmup_steps = 0
    if stage.stage == 'lm':
      stage.update(steps=2, epochs=None)
      stage.optim.warmup_steps = 0
      stage.lm.batch = 4
    if stage.stage == 'evaluate':
      for test in stage.tests.values():
        test.problems = 8
    if stage.stage == 'preference':
      stage.update(epochs=1.)
      stage.data.split, stage.eval.split = 'train[:-2]', 'train[-2:]'
      stage.preference.batch = 1  # few prompts have responses that differ
      stage.optim.warmup_steps = 0
    if stage.stage == 'sample':
      stage.rl.group = 4
  # Of few prompts do rewards differ: some are to be left to train on.
  config.stages.preferences.data.num_prompts = 64
  config.stages.preferences.rl.prompts = 32
  # What two steps have taught is seldom right; it may pass on here.
  for name in ('few_shot', 'zero_samples', 'rejection', 'judged', 'refined',
               'thoughts', 'instructed'):
    config.stages[name].keep.update(min_accuracy=0., format=False,
                                    reflection=False, max_repetition=None)
    config.stages[name].rewards.languages = ()
  return config
