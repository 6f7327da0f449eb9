"""DeepSeek-R1: the whole recipe as one graph of stages, and what it is for.

    python -m r1jax.main --config=experiments/r1.py:mini --workdir=/tmp/r1

R1-Zero from the base; the cold start; reasoning RL with language consistency;
rejection sampling; fine-tuning of the base on what was kept and on general
data; two reward models and the secondary RL, by rules and then by them, too:
that is R1 ([v2] arXiv 2501.12948v2, 3 and B.4). Beside it what its claims are
measured by: the same RL without the language reward and from the base; a
student distilled into, by samples and by logits, and one that RL alone
improves; few examples in the place of all; examples in the prompt. Every policy
takes the same tests (measured_*).

Started again it goes on; --config.dry_run=True says with what. `:mini` is the
miniature world, on two cores. `:paper` is the recipe itself on DeepSeek-V3,
without what only measures it, with the values that are published, each with its
source; what it needs besides a pod its dry run lists: the base, a model that
helps, prompts, general data, pairs and labels for the reward models.
"""

from experiments import cold_start
from experiments import common
from experiments import distill
from experiments import ppo
from experiments import preferences
from experiments import r1_paper
from experiments import r1_zero
from experiments import rejection_sampling
from experiments import reward_model
from r1jax.mini import lessons

# Who takes the tests: {name: where it is from}.
POLICIES = dict(
    base='mini', zero='{zero}', cold_start='{cold_start}',
    reasoning='{reasoning}', sft='{sft}', r1='{r1}',
    no_language='{no_language}', zero_language='{zero_language}',
    less='{less}', all='{all}')
STUDENTS = dict(
    student_base='mini_student', student_sft='{student_sft}',
    student_forward='{student_forward}', student_reverse='{student_reverse}',
    student_rl='{student_rl}')


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini, 'paper': r1_paper.pipeline})


def mini() -> common.ConfigDict:
  stages = dict(zero=zero(), **cold_start.stages())
  stages |= dict(reasoning=reasoning(), rejection=rejection(),
                 judged=judged(), thoughts=thoughts(), sft_data=sft_data(),
                 sft=sft('mini'))
  stages |= dict(preferences=pairs(), labels=labels(), helpful=helpful(),
                 harmless=harmless(), rules=rules(), r1=secondary())
  stages |= dict(no_language=reasoning(), zero_language=zero())
  stages['no_language'].rewards.weights.language = 0.0
  stages['zero_language'].rewards.weights.language = 1.0
  stages |= dict(
      less_data=less_data(), less=sft('mini', '{less_data}'), all=sft('mini'))
  for name in ('less', 'all'):  # the same steps
    stages[name].update(steps=120)
  stages |= dict(
      student_sft=student(), student_forward=student('forward'),
      student_reverse=student('reverse'), student_rl=distill.rl())
  # As much computing as a student's fine-tuning is, or a little more.
  stages['student_rl'].steps = 52
  stages |= {f'measured_{name}': measured(where)
             for name, where in POLICIES.items()}
  stages |= {f'measured_{name}': measured(where, common.student_model())
             for name, where in STUDENTS.items()}
  stages |= dict(shots=shots('{r1}'), shots_base=shots('mini'))
  return common.pipeline('r1.py:mini', 'r1', stages)


def zero() -> common.ConfigDict:
  config = r1_zero.mini()
  config.steps = 40
  config.eval.update(split='heldout', problems=64)
  return config


def reasoning() -> common.ConfigDict:
  """Reasoning RL on the cold start, for as long as Zero's: [v2] 3.2.1."""
  config = zero()
  config.name = 'r1.py:reasoning'
  config.init_from = '{cold_start}'
  config.data.seed = 6
  config.rewards.update(answer='summary', form='summary')
  config.rewards.weights.language = 1.0
  return config


def rejection() -> common.ConfigDict:
  config = rejection_sampling.mini()
  config.init_from = '{reasoning}'
  config.data.update(num_prompts=1024, seed=7)
  config.rewards.update(answer='summary', form='summary')
  return config


def judged() -> common.ConfigDict:
  """Problems for which a model stands in for the rule ([v1] 2.3.3).

  Here the rule is known all the same: it says what the judge's word is worth.
  """
  config = rejection()
  config.name = 'r1.py:judged'
  config.data.update(num_prompts=128, seed=8, options=dict(verifier='judge'))
  config.rewards.judge.update(
      init_from='mini_helper', template='mini', prompt=lessons.JUDGE,
      prompt_tokens=256, response_tokens=96)
  return config


def thoughts() -> common.ConfigDict:
  """Translations and texts, before which the helper thinks."""
  config = cold_start.refined()
  config.name = 'r1.py:thoughts'
  config.data = common.prompts(
      'drafts:mini_general', num_prompts=768, seed=9,
      instruction=lessons.THINK,
      options=dict(tasks=('translation',)))
  config.rewards.languages = ()
  return config


def sft_data() -> common.ConfigDict:
  """Two fifths are reasoning; of the paper's three quarters ([v2] B.3.3)."""
  config = common.base('r1.py:sft_data', 'collect')
  config.collect = dict(
      rejection=common.part('jsonl:{rejection}/kept-*.jsonl', 1800),
      judged=common.part('jsonl:{judged}/kept-*.jsonl', 150),
      thoughts=common.part('jsonl:{thoughts}/kept-*.jsonl'),
      trivial=common.part('mini_general', 500,
                          tasks=('factual', 'self_cognition')),
      writing=common.part('mini_writing', 300),
      requests=common.part('mini_requests', 400))
  return config


def less_data() -> common.ConfigDict:
  """LIMA (arXiv 2305.11206): few examples, well chosen."""
  config = common.base('r1.py:less_data', 'collect')
  config.collect = dict(curated=common.part(
      'jsonl:{sft_data}/collected.jsonl', 256, order='curated'))
  return config


def sft(init_from: str, data: str = '{sft_data}') -> common.ConfigDict:
  """Two epochs over what was collected, from the base."""
  config = cold_start.sft()
  config.name = 'r1.py:sft'
  config.init_from = init_from
  config.epochs = 2.
  config.lm.batch = 4
  config.optim.lr = 2e-3
  config.data.task = f'jsonl:{data}/collected.jsonl'
  return config


def pairs() -> common.ConfigDict:
  """What the fine-tuned model writes and answers, ranked by rules."""
  config = preferences.mini()
  config.init_from = '{sft}'
  config.data = common.prompts(
      (('mini_writing', 0.6), ('mini_requests', 0.4)), num_prompts=512,
      options={'1': dict(harmful=False)})
  config.rewards.answer = 'summary'
  return config


def labels() -> common.ConfigDict:
  """What it says to requests, each safe or not."""
  config = preferences.mini()
  config.name = 'r1.py:labels'
  config.init_from = '{sft}'
  config.labels = True
  config.data = common.prompts('mini_requests', num_prompts=384,
                               options=dict(safety=True))
  config.rl.group = 4
  config.rewards.answer = 'summary'
  return config


def helpful() -> common.ConfigDict:
  config = reward_model.mini()
  config.name = 'r1.py:helpful'
  config.init_from = '{sft}'
  config.data.update(task='jsonl:{preferences}/preferences.jsonl',
                     split='train[:-48]')
  config.preference.scores = 'summary'
  config.eval.update(split='train[-48:]', problems=48)
  return config


def harmless() -> common.ConfigDict:
  """What is said to requests is short: rows are, and many epochs."""
  config = helpful()
  config.name = 'r1.py:harmless'
  config.epochs = 6.
  config.data.task = 'jsonl:{labels}/preferences.jsonl'
  config.preference.update(
      loss='pointwise', scores='response', length=256, batch=2)
  return config


def rules() -> common.ConfigDict:
  """Secondary RL, its first part: reasoning alone, by rules ([v2] 3.2.2)."""
  config = reasoning()
  config.name = 'r1.py:rules'
  config.steps = 16
  config.init_from = '{sft}'
  config.data.seed = 10
  config.rl.temperature = 0.7
  return config


def secondary() -> common.ConfigDict:
  """Its last part: general prompts and reward models, too ([v2] 3.2.2).

  Kept to the end, or the policy learns to please them. Other than the paper's:
  24 of 40 steps, not 400 of 1,700; a request is scored by both models; general
  responses are not asked for a thought, as those that were learned from have
  none.
  """
  config = rules()
  config.name = 'r1.py:secondary'
  config.steps = 24
  config.init_from = '{rules}'
  config.data = common.prompts(
      (('mini_reasoning', 0.5), ('mini_writing', 0.25),
       ('mini_requests', 0.25)), num_prompts=640, seed=11)
  config.rl.update(prompt_tokens=40)
  general = dict(accuracy=0.0, format=0.0, language=1.0, helpful=1.0)
  # Of writings the harmless one has seen none: what it says of them is noise.
  config.rewards.tasks = dict(writing=general | dict(harmless=0.0),
                              requests=general | dict(harmless=1.0))
  config.rewards.models = {
      name: ppo.reward_model() for name in ('helpful', 'harmless')}
  for name, model in config.rewards.models.items():
    model.init_from = f'{{{name}}}'
  return config


def student(kind: str | None = None) -> common.ConfigDict:
  config = distill.mini(kind)
  config.data.task = 'jsonl:{sft_data}/collected.jsonl'
  if kind is not None:
    config.distill.init_from = '{r1}'
  return config


def measured(init_from: str, model: common.ConfigDict | None = None
            ) -> common.ConfigDict:
  """The tests that every policy takes, on prompts that no stage looks at.

  Sampled as the paper's evaluations are ([v1] arXiv 2501.12948v1, 3).
  """
  config = common.base('r1.py:measured', 'measure')
  config.init_from = init_from
  config.model = model or common.mini_model()
  config.vocab = common.mini_vocab()
  config.rl = common.sampling(prompts=64, group=1, prompt_tokens=48,
                              response_tokens=160, sample_chunk=80)
  config.rewards = r1_zero.rewards()
  config.rewards.update(answer='summary', form='summary')
  config.tests = dict(
      reasoning=common.test(common.prompts('mini_reasoning', seed=20), 512),
      general=common.test(common.prompts('mini_general', seed=20), 192),
      writing=common.test(common.prompts('mini_writing', seed=20), 96),
      requests=common.test(common.prompts('mini_requests', seed=20), 128))
  config.eval.update(batch=64, temperature=0.6, top_p=0.95)
  return config


def shots(init_from: str) -> common.ConfigDict:
  """With 0, 1 and 4 examples before the problem.

  Four are 385 tokens, more than any model here was trained on (256).
  """
  config = measured(init_from)
  config.name = 'r1.py:shots'
  config.model.max_len = 640
  config.rl.prompt_tokens = 400
  config.tests = {
      f'shots_{n}': common.test(common.prompts(
          'mini_reasoning', seed=20, shots=n, examples='mini_worked:short_en'),
                                256) for n in (0, 1, 4)}
  return config
