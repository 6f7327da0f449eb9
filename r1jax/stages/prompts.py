"""The prompts of `config.data`, as stages that sample are given them."""

from r1jax import config as config_lib
from r1jax.stages import reward_models


def read(config, vocab, split: str, count: int):
  """The prompts of a split of `config.data`, with what was left out counted."""
  from r1jax.data import sources  # reasoning_gym, and TensorFlow:
  from r1jax.data import tasks  # only where a dataset is built
  data, shots = config.data, config.data.get('shots', 0)
  examples = sources.examples(
      data.examples, shots, data.seed) if shots else ()
  prompts, counts = tasks.prompt_set(
      data.task, vocab, config.rl.prompt_tokens, split=split,
      template=data.template, system=data.get('system'),
      examples=examples, instruction=data.get('instruction'), seed=data.seed,
      num_prompts=count, options=data.options.to_dict())
  if counts['too_long']:
    print(f'{counts["too_long"]} prompts of split {split!r} are longer than '
          f'config.rl.prompt_tokens = {config.rl.prompt_tokens} and left out')
  undecided = [record['task'] for record in prompts.records
               if record['verifier'] == 'judge']
  if undecided and not reward_models.has_judge(config):
    raise config_lib.error('rewards.judge.init_from', 'a judge (or its url), '
                           f'for the verifier of task {undecided[0]!r} is one',
                           None)
  return prompts
