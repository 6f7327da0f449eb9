"""The cold start: a base model learns to reason readably from few examples.

    python -m r1jax.main --config=experiments/cold_start.py:mini \
        --workdir=/tmp/cold_start

Long chains of thought are collected in three ways ([v2] arXiv 2501.12948v2,
B.3.2): a helper model is shown worked examples (few_shot), or prompted for
detailed answers with reflection and verification (instructed); or it rewrites
R1-Zero's responses, filtered (zero_samples), into reasoning and a summary
(refined). They are merged, each line with its source (collected), and the base
is briefly fine-tuned on them (cold_start). In between a person may review them:

    python -m r1jax.main --config=experiments/cold_start.py:mini \
        --workdir=/tmp/cold_start --config.until=collected
    python -m r1jax.review --out=/tmp/reviewed.jsonl \
        --candidates=/tmp/cold_start/collected/collected.jsonl
    ... --config.stages.cold_start.data.task=jsonl:/tmp/reviewed.jsonl

The thinking is now followed by a summary instead of an <answer> block. R1-Zero
is trained first; --config.stages.zero_samples.init_from=DIR samples another.
"""

from experiments import common
from experiments import r1_zero
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections
from r1jax.mini import lessons


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  return common.pipeline(None, {'zero': r1_zero.mini(), **stages()})


def stages() -> dict[str, common.ConfigDict]:
  """The cold start's stages, which follow an R1-Zero named 'zero'."""
  return dict(
      few_shot=few_shot(), instructed=instructed(),
      zero_samples=zero_samples(), refined=refined(), collected=collected(),
      cold_start=sft())


def helper_samples(task: str, *, group: int, prompt_tokens: int,
                   reflection: bool = False,
                   rewards: common.ConfigDict | None = None,
                   **prompts) -> common.ConfigDict:
  """Correct responses of the helper, at most two per prompt."""
  return common.base(
      'sample', init_from='mini_helper', model=common.mini_model(max_len=512),
      vocab=common.mini_vocab(), data=sections.prompts(task, **prompts),
      rl=sections.sampling(
          prompts=64, group=group, prompt_tokens=prompt_tokens,
          response_tokens=160, sample_chunk=80, cpu_threads=2),
      rewards=rewards or reward_sections.rewards(
          answer='summary', form='summary'),
      keep=sample_sections.keep(per_prompt=2, reflection=reflection))


def few_shot() -> common.ConfigDict:
  return helper_samples(
      'mini_reasoning', num_prompts=256, seed=3, shots=1,
      examples='mini_worked:long_en', group=2, prompt_tokens=224,
      reflection=True)


def instructed() -> common.ConfigDict:
  return helper_samples(
      'mini_reasoning', num_prompts=256, seed=4, instruction=lessons.REASON,
      group=2, prompt_tokens=64, reflection=True)


def zero_samples() -> common.ConfigDict:
  """Correct responses of R1-Zero, whatever languages they mix."""
  return common.base(
      'sample', init_from='{zero}', model=common.mini_model(max_len=512),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_reasoning', num_prompts=256, seed=5),
      rl=sections.sampling(
          prompts=64, group=2, prompt_tokens=32, response_tokens=160,
          sample_chunk=80, cpu_threads=2),
      rewards=reward_sections.rewards(
          answer='tags', form='answer', languages=()),
      keep=sample_sections.keep(per_prompt=2))


def refined() -> common.ConfigDict:
  return helper_samples(
      'drafts:jsonl:{zero_samples}/kept-*.jsonl', num_prompts=512, seed=2,
      instruction=lessons.REWRITE, group=1, prompt_tokens=256)


def collected() -> common.ConfigDict:
  return common.base('collect', collect={
      name: sections.part(f'jsonl:{{{name}}}/kept-*.jsonl')
      for name in ('few_shot', 'instructed', 'refined')})


def sft() -> common.ConfigDict:
  """[v2] B.4.2: 2 to 3 epochs, cosine to a tenth.

  The learning rate is near pretraining's: the base has never seen some tokens,
  such as \\boxed{.
  """
  return common.base(
      'lm', epochs=3., init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.texts(
          'jsonl:{collected}/collected.jsonl', template='mini'),
      lm=sections.lm(batch=8, length=256),
      optim=dict(lr=3e-3, schedule='cosine', warmup_steps=5),
      eval=dict(split=None))
