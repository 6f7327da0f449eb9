"""What R1's recipe leaves behind: the paper's drawbacks, in miniature.

    python -m r1jax.main --config=experiments/drawbacks.py:mini \
        --workdir=/tmp/drawbacks

Every model of the recipe takes the same tests: general tasks; reasoning asked
in English and Chinese, whose thinking RL rewards, and in Italian, which no
stage trains; reasoning with examples before the problem; and functions to
repair (arXiv 2501.12948v2, Conclusion and limitations). The recipe is a shorter
r1.py, on a base that has read Italian, several problems in a row and repairs
(mini/wider.py). After the two bases, all stages run once per seed; `:one_seed`
runs the first seed alone, and `:mini` continues in its workdir.

What is shorter: the cold start's examples are written by rule; problems that
need a judge and texts with thoughts are left out; and secondary RL is rewarded
by the mini world's own rules instead of reward models.

repair.jsonl in this folder has functions to repair for larger models.
"""

import re

from experiments import cold_start
from experiments import common
from experiments import distill
from experiments import pretrain
from experiments import r1
from experiments import reward_sections
from experiments import sections

SEEDS = (0, 1, 2)
PAID = ('en', 'zh')  # languages of the reasoning prompts of all stages
LANGUAGES = (*PAID, 'it')
# A quarter of pretraining's, as the paper's: 5e-5 ([v2] B.4.2) of the base's
# 2.2e-4 (arXiv 2412.19437, 4.2). At r1.py's, up to 3e-3, much of what the base
# has read is overwritten.
FINE_TUNING = 1e-3
ROW = 384  # tokens: a prompt with examples, and its response
PROBLEMS = 96


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {
      'mini': mini, 'one_seed': lambda: mini(SEEDS[:1])})


def mini(seeds: tuple[int, ...] = SEEDS) -> common.ConfigDict:
  stages = dict(base=wider(pretrain.mini(), 'mini', 400),
                student_base=wider(pretrain.student(), 'mini_student', 240))
  stages |= {f'measured_{name}': measured(name) for name in stages}
  for seed in seeds:
    stages |= recipe(seed)
  return common.pipeline('drawbacks', stages)


def wider(config: common.ConfigDict, init_from: str, steps: int
         ) -> common.ConfigDict:
  """A base model, trained further: on a wider corpus, in longer rows."""
  config.init_from, config.steps = init_from, steps
  config.model.max_len = ROW
  config.data = sections.texts('mini_wider', options=dict(size=26_000))
  config.lm.batch, config.lm.length = 16, ROW
  config.optim.lr, config.optim.warmup_steps = 2e-3, 20
  return config


def recipe(seed: int) -> dict[str, common.ConfigDict]:
  """The stages of one seed, seedN_NAME, and the tests of its models."""
  collected = 'jsonl:{sft_data}/collected.jsonl'
  models = dict(
      zero=r1.zero(), cold_start=cold_start.sft(), reasoning=r1.reasoning(),
      sft=r1.sft(collected), r1=secondary(), distilled=distill.mini(collected))
  for name in ('zero', 'cold_start', 'sft'):
    models[name].init_from = '{base}'
  models['distilled'].init_from = '{student_base}'
  models['cold_start'].data.task = 'jsonl:{examples}/collected.jsonl'
  for name in ('cold_start', 'sft'):
    models[name].optim.lr = FINE_TUNING
  # The paper's smallest student: 1e-4 ([v2] B.4.3), twice as high.
  models['distilled'].optim.lr = 2 * FINE_TUNING
  stages = models | dict(
      examples=examples(), rejection=r1.rejection(), sft_data=sft_data())
  for name in ('zero', 'reasoning', 'rejection'):
    stages[name].data.options = dict(languages=PAID)
  # From the base few steps have far to go. A policy that has been fine-tuned
  # has little to gain, and at 5e-4 its reasoning falls from 78 to 62 %.
  for name, steps, lr in (('zero', 24, 5e-4), ('reasoning', 16, 2e-4),
                          ('r1', 16, 2e-4)):
    models[name].steps, models[name].eval.problems = steps, 32
    models[name].optim.lr, models[name].optim.warmup_steps = lr, 3
  stages['rejection'].data.num_prompts = 512
  stages |= {f'measured_{name}': measured(name) for name in models}
  for stage in stages.values():
    stage.seed = seed
    _refer(stage, {name: f'seed{seed}_{name}' for name in stages})
  return {f'seed{seed}_{name}': stage for name, stage in stages.items()}


def _refer(config: common.ConfigDict, names: dict[str, str]) -> None:
  """Gives the stages that a config refers to, as '{sft}', other names."""
  for field, value in config.items():
    if isinstance(value, common.ConfigDict):
      _refer(value, names)
    elif isinstance(value, str):
      config[field] = re.sub(
          r'\{(\w+)\}', lambda found: f'{{{names.get(found[1], found[1])}}}',
          value)


def examples() -> common.ConfigDict:
  """The cold start's: long chains of thought in the prompt's language."""
  return common.base('collect', collect={
      language: sections.part(
          f'mini_worked:long_{language}', 192, asked=language)
      for language in PAID})


def sft_data() -> common.ConfigDict:
  """As r1.py's, without judged problems; translations have no thoughts."""
  config = r1.sft_data()
  del config.collect.judged, config.collect.thoughts
  config.collect.trivial = sections.part('mini_general', 800, tasks=(
      'factual', 'self_cognition', 'translation'))
  return config


def secondary() -> common.ConfigDict:
  """RL on reasoning and on general prompts, all of them rewarded by rules."""
  config = r1.rules()
  config.rl.prompt_tokens = 40
  config.data = sections.prompts(
      (('mini_reasoning', 0.5), ('mini_writing', 0.25),
       ('mini_requests', 0.25)), num_prompts=640, seed=11,
      options={'0': dict(languages=PAID)})
  config.rewards = reward_sections.rewards(
      answer='summary', form='summary', weights=dict(language=1.0),
      tasks=dict(writing=dict(format=0.0), requests=dict(format=0.0)))
  return config


def measured(name: str) -> common.ConfigDict:
  """The tests of a stage's model; problems are the same in all languages."""
  model = (common.student_model if name in ('student_base', 'distilled')
           else common.mini_model)
  config = r1.measured(f'{{{name}}}', model(max_len=ROW))
  config.rl.prompt_tokens = 64
  config.rewards.languages, config.rewards.workers = LANGUAGES, 1
  config.eval.batch = PROBLEMS
  problems = lambda language='en', shots=0, **examples: sections.questions(
      'mini_reasoning', seed=20, shots=shots,
      options=dict(languages=(language,)), **examples)
  tests = {language: sections.test(
      problems(language), PROBLEMS, language=language)
           for language in LANGUAGES}
  room = dict(prompt_tokens=ROW - config.rl.response_tokens)
  tests |= {f'shots_{shots}': sections.test(
      problems(shots=shots, examples='mini_worked:short_en'), PROBLEMS, room)
            for shots in (1, 2)}
  tests |= {name: sections.test(
      sections.questions(f'mini_{name}', seed=20), PROBLEMS)
            for name in ('general', 'repair')}
  config.tests = tests
  return config
