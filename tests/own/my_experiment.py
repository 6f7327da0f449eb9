"""R1-Zero in miniature on data, rewards and a template of one's own."""

import pathlib

from experiments import r1_zero

HERE = pathlib.Path(__file__).parent


def get_config(arg='short'):
  config = r1_zero.mini()
  config.name = f'my_experiment.py:{arg}'
  config.steps = {'short': 2, 'long': 60}[arg]
  config.optim.warmup_steps = min(5, config.steps - 1)
  config.data.update(task=f'{HERE}/my_data.py:sums', num_prompts=64,
                     template=f'{HERE}/my_template.txt')
  config.data.options.largest = 12
  config.rl.update(prompts=4, group=4, prompt_tokens=48, response_tokens=24,
                   micro_batch=16, sample_chunk=24)
  config.rewards.functions = dict(
      brief=f'{HERE}/my_rewards.py:brief', close=f'{HERE}/my_rewards.py:close',
      polite=f'{HERE}/my_rewards.py:polite')
  config.rewards.weights.update(format=0., brief=.1, close=.5)  # polite: 1
  config.eval.update(problems=4, batch=4)
  return config.lock()
