"""R1's recipe at the paper's scale, on DeepSeek-V3: r1.py:paper.

The values are those of [v2] arXiv 2501.12948v2, each with its source; where one
is not published, that is said.
"""

from experiments import cold_start
from experiments import common
from experiments import ppo
from experiments import r1_zero
from experiments import rejection_sampling
from experiments import reward_model


def pipeline() -> common.ConfigDict:
  """Every stage that makes R1, those that only measure it left out."""
  stages = dict(zero=r1_zero.paper(), **cold_start.stages())
  stages |= dict(
      reasoning=r1_zero.paper(), rejection=rejection_sampling.mini(),
      judged=rejection_sampling.mini(),
      sft_data=common.base('', 'collect'), sft=cold_start.sft(),
      helpful=reward_model.helpful(), harmless=reward_model.harmless(),
      r1=r1_zero.paper())
  for name in ('zero', 'cold_start', 'sft'):
    stages[name].init_from = common.placeholder(str)
  for name in ('zero_samples', 'rejection', 'judged'):
    samples(stages[name])
  for name in ('few_shot', 'instructed', 'refined'):  # the helper says these
    samples(stages[name]).init_from = common.placeholder(str)
  for name in ('rejection', 'judged'):
    stages[name].init_from = '{reasoning}'
    stages[name].rewards.update(answer='summary', form='summary')
  stages['sft'].data.task = 'jsonl:{sft_data}/collected.jsonl'
  stages['refined'].data.task = 'drafts:jsonl:{zero_samples}/kept-*.jsonl'
  stages['judged'].data.options.verifier = 'judge'
  for name in ('cold_start', 'sft'):
    fine_tuning(stages[name])
  reasoning(stages['reasoning'], '{cold_start}')
  secondary(reasoning(stages['r1'], '{sft}'))
  stages['sft_data'].collect = {
      name: common.part(f'jsonl:{{{name}}}/kept-*.jsonl')
      for name in ('rejection', 'judged')}
  # [v2] B.3.3: 177,812 of 804,745 are general, of V3's own fine-tuning data.
  stages['sft_data'].collect['general'] = common.part('jsonl:PATH', 177_812)
  for name in ('helpful', 'harmless'):
    stages[name].init_from = '{sft}'
  for name, stage in stages.items():
    stage.name = f'r1.py:paper, {name}'
    if 'model' in stage:
      stage.model = dict(preset='deepseek_v3', attention_chunk=512,
                         scalar=name in ('helpful', 'harmless'))
      stage.vocab = common.released_vocab()
  return common.pipeline('r1.py:paper', None, stages)


def samples(config: common.ConfigDict) -> common.ConfigDict:
  """Samples of full length; how many a prompt is not published."""
  config.data = common.prompts(
      None, template='chat', num_prompts=100_000, seed=config.data.seed,
      shots=config.data.shots, instruction=config.data.instruction)
  config.rl.update(prompts=512, group=4, prompt_tokens=1024,
                   response_tokens=32_768 - 1024, sample_chunk=1024)
  # [v2] B.3.3: no mixed languages, long paragraphs or code blocks.
  config.keep.update(per_prompt=common.optional(int), max_paragraph=4000)
  config.rewards.judge = common.asked()
  return config


def fine_tuning(config: common.ConfigDict) -> None:
  """[v2] B.4.2, of both fine-tunings."""
  config.epochs = 2.  # 2 to 3
  config.data.template = 'chat'
  config.lm.update(batch=128, length=32_768, logp_chunk=128)
  config.optim.update(lr=5e-5, schedule='cosine', final_fraction=0.1)


def reasoning(config: common.ConfigDict, init_from: str) -> common.ConfigDict:
  """[v2] 3.2.1: as R1-Zero, with the language reward; steps not published."""
  config.init_from = init_from
  config.data.template = 'chat'
  config.rl.update(clip_low=10.0, clip_high=10.0)
  config.rewards.update(answer='summary', form='summary')
  config.rewards.weights.update(language=1.0)
  return config


def secondary(config: common.ConfigDict) -> None:
  """[v2] 3.2.2; by-task weights follow the names of the general tasks."""
  config.steps = 1700
  config.rl.temperature = 0.7
  config.rewards.models = {
      name: ppo.reward_model() for name in ('helpful', 'harmless')}
  for name, model in config.rewards.models.items():
    model.update(init_from=f'{{{name}}}', from_step=1300)  # the last 400
  config.rewards.tasks = dict(general=dict(
      accuracy=0.0, helpful=1.0, harmless=1.0))
