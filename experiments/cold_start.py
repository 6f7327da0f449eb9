"""The cold start: a base model learns to reason readably from few examples.

    python -m r1jax.main --config=experiments/cold_start.py:mini \
        --workdir=/tmp/cold_start

Long chains of thought are gathered in three ways ([v2] arXiv 2501.12948v2,
B.3.2): a helper is shown worked examples (few_shot), or asked for detailed
answers with reflection and verification (instructed); or what R1-Zero says,
filtered (zero_samples), is rewritten into reasoning and a summary (refined).
All of it comes together (collected), each line with where it is from, and the
base is briefly fine-tuned on it (cold_start). Between the two a person may go
through it:

    python -m r1jax.main --config=experiments/cold_start.py:mini \
        --workdir=/tmp/cold_start --config.until=collected
    python -m r1jax.review --out=/tmp/reviewed.jsonl \
        --candidates=/tmp/cold_start/collected/collected.jsonl
    ... --config.stages.cold_start.data.task=jsonl:/tmp/reviewed.jsonl

What stands behind the thinking is a summary now, no <answer> block. R1-Zero
comes first; --config.stages.zero_samples.init_from=DIR takes another.
"""

from experiments import common
from experiments import r1_zero
from experiments import rejection_sampling
from r1jax.mini import lessons


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini})


def mini() -> common.ConfigDict:
  return common.pipeline('cold_start.py:mini', None, {
      'zero': r1_zero.mini(), **stages()})


def stages() -> dict[str, common.ConfigDict]:
  """The cold start's stages, behind an R1-Zero of the name 'zero'."""
  return dict(
      few_shot=few_shot(), instructed=instructed(),
      zero_samples=zero_samples(), refined=refined(), collected=collected(),
      cold_start=sft())


def sampled(name: str, init_from: str) -> common.ConfigDict:
  """Rejection sampling of responses in the form that R1 speaks."""
  config = rejection_sampling.mini()
  config.name = f'cold_start.py:{name}'
  config.init_from = init_from
  config.model.max_len = 512
  config.data.update(num_prompts=256, seed=2)
  config.rl.update(group=2)
  config.rewards.update(answer='summary', form='summary')
  config.keep.update(reflection=True)
  return config


def few_shot() -> common.ConfigDict:
  config = sampled('few_shot', 'mini_helper')
  config.data.update(shots=1, examples='mini_worked:long_en', seed=3)
  config.rl.update(prompt_tokens=224)
  return config


def instructed() -> common.ConfigDict:
  config = sampled('instructed', 'mini_helper')
  config.data.update(instruction=lessons.REASON, seed=4)
  config.rl.update(prompt_tokens=64)
  return config


def zero_samples() -> common.ConfigDict:
  """What R1-Zero says, where it is right; its languages are left to mix."""
  config = sampled('zero_samples', '{zero}')
  config.rewards.update(answer='tags', form='answer', languages=())
  config.keep.update(reflection=False)
  config.data.update(seed=5)
  return config


def refined() -> common.ConfigDict:
  config = sampled('refined', 'mini_helper')
  config.data.update(task='drafts:jsonl:{zero_samples}/kept-*.jsonl',
                     num_prompts=512, instruction=lessons.REWRITE)
  config.rl.update(prompt_tokens=256, group=1)
  config.keep.update(reflection=False)
  return config


def collected() -> common.ConfigDict:
  config = common.base('cold_start.py:collected', 'collect')
  config.collect = {
      name: common.part(f'jsonl:{{{name}}}/kept-*.jsonl')
      for name in ('few_shot', 'instructed', 'refined')}
  return config


def sft() -> common.ConfigDict:
  """[v2] B.4.2: 2 to 3 epochs, cosine to a tenth.

  The rate is near the base's own: some of the pieces are new to it, \\boxed{.
  """
  config = common.base('cold_start.py:sft', 'lm', epochs=3.)
  config.init_from = 'mini'
  config.model = common.mini_model()
  config.vocab = common.mini_vocab()
  config.data = dict(task='jsonl:{collected}/collected.jsonl', split='train',
                     seed=0, template='mini', options=dict())
  config.lm = dict(batch=8, length=256, micro_batches=1, logp_chunk=64,
                   prompt_weight=0.0)
  config.optim.update(lr=3e-3, schedule='cosine', warmup_steps=5)
  config.eval.update(split=None)
  return config
