"""DeepSeek-R1: the whole recipe as one graph of stages, and its ablations.

    python -m r1jax.main --config=experiments/r1.py:mini --workdir=/tmp/r1

R1-Zero from the base; the cold start; reasoning RL with the language reward;
rejection sampling; fine-tuning of the base on the responses kept and on general
data; two reward models; and the secondary RL, with rules first, then with the
reward models as well ([v2] arXiv 2501.12948v2, 3 and B.4). The other stages
test the paper's claims: the same RL without the language reward, and with it
from the base; a student that is distilled, on samples and on logits, and one
trained by RL alone; fine-tuning on few examples; examples in the prompt. Every
policy takes the same tests (measured_*).

Started again, it resumes; --config.dry_run=True prints what would run. `:mini`
is the miniature world, on two cores. `:paper` is the recipe on DeepSeek-V3,
without those other stages, with the published values and their sources; its dry
run lists what it needs besides a pod: the base, a helper model, prompts,
general data, pairs and labels for the reward models.
"""

from experiments import cold_start
from experiments import common
from experiments import distill
from experiments import r1_paper
from experiments import r1_zero
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections
from r1jax.mini import lessons

# The policies that take the tests: {name: init_from}.
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
  return common.variant(__file__, arg, {
      'mini': mini, 'paper': r1_paper.pipeline})


def mini() -> common.ConfigDict:
  data = 'jsonl:{sft_data}/collected.jsonl'
  stages = dict(
      zero=zero(), **cold_start.stages(),
      reasoning=reasoning(), rejection=rejection(), judged=judged(),
      thoughts=thoughts(), sft_data=sft_data(), sft=sft(data),
      preferences=pairs(), labels=labels(), helpful=helpful(),
      harmless=harmless(), rules=rules(), r1=secondary(),
      # Stages that test the paper's claims.
      no_language=reasoning(language=0.0), zero_language=zero(language=1.0),
      less_data=less_data(),
      less=sft('jsonl:{less_data}/collected.jsonl', steps=120),
      all=sft(data, steps=120),  # the same steps
      student_sft=distill.mini(data),
      student_forward=distill.mini(data, 'forward', '{r1}'),
      student_reverse=distill.mini(data, 'reverse', '{r1}'),
      # The compute of a student's fine-tuning, or a little more.
      student_rl=distill.rl(steps=52))
  stages |= {f'measured_{name}': measured(where, common.mini_model())
             for name, where in POLICIES.items()}
  stages |= {f'measured_{name}': measured(where, common.student_model())
             for name, where in STUDENTS.items()}
  stages |= dict(shots=shots('{r1}'), shots_base=shots('mini'))
  return common.pipeline('r1', stages)


def zero(language: float = 0.0) -> common.ConfigDict:
  """R1-Zero; `language` is the weight of the language reward."""
  config = r1_zero.mini()
  config.steps, config.eval.problems = 40, 64
  config.rewards.weights.language = language
  return config


def reasoning(language: float = 1.0) -> common.ConfigDict:
  """Reasoning RL from the cold start, as many steps as Zero's: [v2] 3.2.1."""
  config = zero(language)
  config.init_from, config.data.seed = '{cold_start}', 6
  config.rewards.answer = config.rewards.form = 'summary'
  return config


def rejection() -> common.ConfigDict:
  return common.base(
      'sample', init_from='{reasoning}', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_reasoning', num_prompts=1024, seed=7),
      rl=sections.sampling(
          prompts=64, group=4, prompt_tokens=32, response_tokens=160,
          sample_chunk=80, cpu_threads=2),
      rewards=reward_sections.rewards(answer='summary', form='summary'),
      keep=sample_sections.keep(per_prompt=2))


def judged() -> common.ConfigDict:
  """Problems that a model judges instead of a rule ([v1] 2.3.3).

  Here the rule is known, too, and shows how good the judge is.
  """
  return common.base(
      'sample', init_from='{reasoning}', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_reasoning', num_prompts=128, seed=8,
                            options=dict(verifier='judge')),
      rl=sections.sampling(
          prompts=64, group=4, prompt_tokens=32, response_tokens=160,
          sample_chunk=80, cpu_threads=2),
      rewards=reward_sections.rewards(
          answer='summary', form='summary', judge=dict(
              init_from='mini_helper', template='mini',
              prompt=lessons.JUDGE, prompt_tokens=256,
              response_tokens=96)),
      keep=sample_sections.keep(per_prompt=2))


def thoughts() -> common.ConfigDict:
  """Translations and texts, for which the helper writes the thoughts."""
  return cold_start.helper_samples(
      'drafts:mini_general', num_prompts=768, seed=9,
      instruction=lessons.THINK, options=dict(tasks=('translation',)),
      group=1, prompt_tokens=256,
      rewards=reward_sections.rewards(
          answer='summary', form='summary', languages=()))


def sft_data() -> common.ConfigDict:
  """Two fifths are reasoning; in the paper three quarters ([v2] B.3.3)."""
  return common.base('collect', collect=dict(
      rejection=sections.part('jsonl:{rejection}/kept-*.jsonl', 1800),
      judged=sections.part('jsonl:{judged}/kept-*.jsonl', 150),
      thoughts=sections.part('jsonl:{thoughts}/kept-*.jsonl'),
      trivial=sections.part('mini_general', 500,
                            tasks=('factual', 'self_cognition')),
      writing=sections.part('mini_writing', 300),
      requests=sections.part('mini_requests', 400)))


def less_data() -> common.ConfigDict:
  """LIMA (arXiv 2305.11206): few, well-chosen examples."""
  return common.base('collect', collect=dict(curated=sections.part(
      'jsonl:{sft_data}/collected.jsonl', 256, order='curated')))


def sft(task: str, steps: int | None = None) -> common.ConfigDict:
  """Two epochs over the collected data, or `steps` steps, from the base."""
  return common.base(
      'lm', steps=steps, epochs=2., init_from='mini',
      model=common.mini_model(), vocab=common.mini_vocab(),
      data=sections.texts(task, template='mini'),
      lm=sections.lm(batch=4, length=256),
      optim=dict(lr=2e-3, schedule='cosine', warmup_steps=5),
      eval=dict(split=None))


def pairs() -> common.ConfigDict:
  """Responses of the fine-tuned model, ranked by rules."""
  return common.base(
      'sample', init_from='{sft}', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts(
          (('mini_writing', 0.6), ('mini_requests', 0.4)), num_prompts=512,
          options={'1': dict(harmful=False)}),
      rl=sections.sampling(
          prompts=32, group=8, prompt_tokens=40, response_tokens=128,
          cpu_threads=2),
      labels=sample_sections.labels(False),
      rewards=reward_sections.rewards(
          answer='summary', weights=dict(format=0.0)))


def labels() -> common.ConfigDict:
  """Its responses to requests, each labelled safe or unsafe."""
  return common.base(
      'sample', init_from='{sft}', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_requests', num_prompts=384,
                            options=dict(safety=True)),
      rl=sections.sampling(
          prompts=32, group=4, prompt_tokens=40, response_tokens=128,
          cpu_threads=2),
      labels=sample_sections.labels(True),
      rewards=reward_sections.rewards(
          answer='summary', weights=dict(format=0.0)))


def helpful() -> common.ConfigDict:
  return common.base(
      'preference', epochs=2., init_from='{sft}',
      model=common.mini_model(scalar=True), vocab=common.mini_vocab(),
      data=sections.preferences(
          'jsonl:{preferences}/preferences.jsonl', split='train[:-48]'),
      # The reader prefers several lines: length is part of the taste.
      preference=sections.preference(
          scores='summary', batch=4, length=1024, balance_length=False),
      optim=dict(lr=1e-3, schedule='cosine', warmup_steps=5),
      eval=dict(split='train[-48:]', problems=48))


def harmless() -> common.ConfigDict:
  """Responses to requests are short: short rows, and more epochs."""
  return common.base(
      'preference', epochs=6., init_from='{sft}',
      model=common.mini_model(scalar=True), vocab=common.mini_vocab(),
      data=sections.preferences(
          'jsonl:{labels}/preferences.jsonl', split='train[:-48]'),
      preference=sections.preference(
          loss='pointwise', batch=2, length=256, balance_length=False),
      optim=dict(lr=1e-3, schedule='cosine', warmup_steps=5),
      eval=dict(split='train[-48:]', problems=48))


def rules() -> common.ConfigDict:
  """Secondary RL, first part: reasoning alone, with rules ([v2] 3.2.2)."""
  config = reasoning()
  config.steps, config.init_from = 16, '{sft}'
  config.data.seed, config.rl.temperature = 10, 0.7
  return config


def secondary() -> common.ConfigDict:
  """Its last part: general prompts and reward models, too ([v2] 3.2.2).

  Only at the end, or the policy exploits them. Unlike the paper: 24 of 40
  steps, not 400 of 1,700; a request is scored by both models; general responses
  need no thoughts, since the examples of the fine-tuning have none.
  """
  general = dict(accuracy=0.0, format=0.0, language=1.0, helpful=1.0)
  config = rules()
  config.steps, config.init_from, config.rl.prompt_tokens = 24, '{rules}', 40
  config.data = sections.prompts(
      (('mini_reasoning', 0.5), ('mini_writing', 0.25),
       ('mini_requests', 0.25)), num_prompts=640, seed=11)
  config.rewards = reward_sections.rewards(
      answer='summary', form='summary', weights=dict(language=1.0),
      # The harmless model was trained on no writings: its scores of them are
      # noise.
      tasks=dict(writing=general | dict(harmless=0.0),
                 requests=general | dict(harmless=1.0)),
      models={name: reward_sections.reward_model(init_from=f'{{{name}}}')
              for name in ('helpful', 'harmless')})
  return config


def measured(init_from: str, model: common.ConfigDict) -> common.ConfigDict:
  """The tests that every policy takes, on prompts that no stage uses.

  They sample as the paper's evaluations do ([v1] arXiv 2501.12948v1, 3).
  """
  return common.base(
      'evaluate', init_from=init_from, model=model, vocab=common.mini_vocab(),
      rl=sections.lengths(
          prompt_tokens=48, response_tokens=160, sample_chunk=80,
          cpu_threads=2),
      rewards=reward_sections.rewards(answer='summary', form='summary'),
      tests={task: sections.test(
          sections.questions(f'mini_{task}', seed=20), problems)
             for task, problems in dict(reasoning=512, general=192, writing=96,
                                        requests=128).items()},
      eval=dict(batch=64, temperature=0.6, top_p=0.95))


def shots(init_from: str) -> common.ConfigDict:
  """With 0, 1 and 4 examples before the problem.

  Four take 385 tokens, more than any model here was trained on (256).
  """
  return common.base(
      'evaluate', init_from=init_from, model=common.mini_model(max_len=640),
      vocab=common.mini_vocab(),
      rl=sections.lengths(
          prompt_tokens=400, response_tokens=160, sample_chunk=80,
          cpu_threads=2),
      rewards=reward_sections.rewards(answer='summary', form='summary'),
      tests={f'shots_{n}': sections.test(
          sections.questions('mini_reasoning', seed=20, shots=n,
                             examples='mini_worked:short_en'), 256)
             for n in (0, 1, 4)},
      eval=dict(batch=64, temperature=0.6, top_p=0.95))
