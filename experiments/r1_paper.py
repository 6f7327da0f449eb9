"""R1's recipe at the paper's scale, on DeepSeek-V3: r1.py:paper.

The values are those of [v2] arXiv 2501.12948v2, each with its source; where one
is not published, that is said. A step of the paper's RL is one of the 16
updates of a rollout, of ours the rollout (r1_zero.py).

Two models are yours to name: --config.models.base, DeepSeek-V3-Base, and
--config.models.helper, which DeepSeek-V3 is to the paper; and a judge, a model
in --config.stages.judged.rewards.judge.init_from or an endpoint in its .url and
.model. What is read of yours lies below the directory it is started in, as
train.jsonl and test.jsonl: reasoning/ (a problem and its answer a line),
judged/ (the same, of problems that no rule can check), examples/ (long worked
answers), general/ (general tasks with answers: what DeepSeek-V3 was fine-tuned
on), helpful/ and harmless/ (general prompts for the last RL; the answer may be
empty): {"prompt": ..., "answer": ...} a line. For the reward models pairs/,
{"prompt": ..., "chosen": ..., "rejected": ...} a line, and labels/, {"prompt":
..., "responses": [...], "grades": [...]}, 1 for one that is safe, else 0.
"""

from experiments import cold_start
from experiments import common
from experiments import ppo
from experiments import r1_zero
from experiments import rejection_sampling
from experiments import reward_model
from r1jax.mini import lessons

_PROMPT, _CONTEXT = 1024, 32_768  # tokens; of a prompt, not published
_REASONING = 'jsonl:reasoning/{split}.jsonl'
_SECONDARY, _PREFERRED = 1_700, 400  # [v2] 3.2.2: the paper's steps, the last


def pipeline() -> common.ConfigDict:
  """Every stage that makes R1, those that only measure it left out."""
  sampling = rejection_sampling.mini
  stages = dict(zero=r1_zero.paper(), zero_long=r1_zero.paper_long(),
                **cold_start.stages())
  stages |= dict(
      reasoning=r1_zero.paper(), rejection=sampling(), judged=sampling(),
      thoughts=sampling(), sft_data=common.base('', 'collect'),
      sft=cold_start.sft(), helpful=reward_model.helpful(),
      harmless=reward_model.harmless(), rules=r1_zero.paper(),
      r1=r1_zero.paper())
  for name in ('zero', 'cold_start', 'sft'):
    stages[name].init_from = '{base}'
  for name in ('zero', 'zero_long'):
    stages[name].data.task = _REASONING
  stages['zero_long'].init_from = '{zero}'
  for name in ('cold_start', 'sft'):
    fine_tuning(stages[name])
  stages['sft'].data.task = 'jsonl:{sft_data}/collected.jsonl'
  gathered(stages)
  rejected(stages)
  # How many steps is not published: as many as R1-Zero's first part.
  reasoning(stages['reasoning'], '{cold_start}')
  secondary(stages)
  for name, pairs in (('helpful', 'pairs'), ('harmless', 'labels')):
    stages[name].init_from = '{sft}'
    stages[name].data.task = f'jsonl:{pairs}/{{split}}.jsonl'
  for name, stage in stages.items():
    stage.name = f'r1.py:paper, {name}'
    if 'model' in stage:
      stage.model = dict(preset='deepseek_v3', attention_chunk=512,
                         scalar=name in ('helpful', 'harmless'))
      stage.vocab = common.released_vocab()
  return common.pipeline('r1.py:paper', None, stages, ('base', 'helper'))


def gathered(stages: dict[str, common.ConfigDict]) -> None:
  """The cold start's data, in the three ways of [v2] B.3.2."""
  for name in ('few_shot', 'instructed'):
    samples(stages[name], _REASONING).init_from = '{helper}'
  stages['few_shot'].data.examples = 'jsonl:examples/{split}.jsonl'
  stages['few_shot'].rl.prompt_tokens = _PROMPT + _CONTEXT  # one example, long
  # R1-Zero is asked as it was trained.
  samples(stages['zero_samples'], _REASONING).data.template = 'r1_zero'
  stages['zero_samples'].init_from = '{zero_long}'
  refined = samples(stages['refined'],
                    'drafts:jsonl:{zero_samples}/kept-*.jsonl')
  refined.init_from = '{helper}'
  refined.rl.prompt_tokens = _PROMPT + _CONTEXT  # the draft stands in it


def rejected(stages: dict[str, common.ConfigDict]) -> None:
  """What the second fine-tuning learns from, [v2] B.3.3."""
  samples(stages['rejection'], _REASONING)
  judged = samples(stages['judged'], 'jsonl:judged/{split}.jsonl')
  judged.data.options.verifier = 'judge'
  for name in ('rejection', 'judged'):
    stages[name].init_from = '{reasoning}'
    stages[name].rewards.update(answer='summary', form='summary')
  # A chain of thought before general answers, where the helper finds it helps.
  thoughts = samples(stages['thoughts'], 'drafts:jsonl:general/{split}.jsonl')
  thoughts.init_from = '{helper}'
  thoughts.data.instruction = lessons.THINK
  thoughts.rl.prompt_tokens = 4 * _PROMPT
  thoughts.rewards.update(answer='summary', form='summary', languages=())
  stages['sft_data'].collect = {
      name: common.part(f'jsonl:{{{name}}}/kept-*.jsonl')
      for name in ('rejection', 'judged', 'thoughts')}
  # Of the 804,745 some 177,812 are general, thoughts among them; trivial
  # queries have none.
  stages['sft_data'].collect['trivial'] = common.part(
      'jsonl:general/{split}.jsonl', 177_812)


def samples(config: common.ConfigDict, task: str) -> common.ConfigDict:
  """Samples of full length; how many a prompt is not published."""
  config.data = common.prompts(
      task, template='chat', num_prompts=100_000, seed=config.data.seed,
      shots=config.data.shots, instruction=config.data.instruction)
  config.rl.update(prompts=512, group=4, prompt_tokens=_PROMPT,
                   response_tokens=_CONTEXT - _PROMPT, sample_chunk=1024)
  # No mixed languages, long paragraphs or code blocks.
  config.keep.update(per_prompt=common.optional(int), max_paragraph=4000)
  config.rewards.judge = common.asked(prompt_tokens=8192, response_tokens=4096)
  return config


def fine_tuning(config: common.ConfigDict) -> None:
  """[v2] B.4.2, of both fine-tunings."""
  config.epochs = 2.  # 2 to 3
  config.data.template = 'chat'
  config.lm.update(batch=128, length=_CONTEXT, logp_chunk=128)
  config.optim.update(lr=5e-5, schedule='cosine', final_fraction=0.1)


def reasoning(config: common.ConfigDict, init_from: str) -> common.ConfigDict:
  """[v2] 3.2.1: as R1-Zero, with the language reward."""
  config.init_from = init_from
  config.data.update(task=_REASONING, template='chat')
  config.rl.update(clip_low=10.0, clip_high=10.0)
  config.rewards.update(answer='summary', form='summary')
  config.rewards.weights.update(language=1.0)
  return config


def secondary(stages: dict[str, common.ConfigDict]) -> None:
  """[v2] 3.2.2: general prompts and reward models in the last steps alone.

  A general prompt is scored by the model of its own kind; format and language
  count for all. The shares of the three kinds are not published.
  """
  for name, init_from, steps in (('rules', 'sft', _SECONDARY - _PREFERRED),
                                 ('r1', 'rules', _PREFERRED)):
    config = reasoning(stages[name], f'{{{init_from}}}')
    config.rl.temperature = 0.7
    config.steps = steps // r1_zero.UPDATES
  config.data = common.prompts(
      ((_REASONING, 0.5), ('jsonl:helpful/{split}.jsonl', 0.25),
       ('jsonl:harmless/{split}.jsonl', 0.25)),
      template='chat', num_prompts=config.data.num_prompts, options={
          '1': dict(task='helpful', verifier='exact'),
          '2': dict(task='harmless', verifier='exact')})
  config.rewards.tasks = {
      name: {'accuracy': 0.0, name: 1.0} for name in ('helpful', 'harmless')}
  config.rewards.models = {
      name: ppo.reward_model() for name in ('helpful', 'harmless')}
  for name, model in config.rewards.models.items():
    model.init_from = f'{{{name}}}'
