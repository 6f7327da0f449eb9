"""Sections that the experiments share, with the defaults they start from.

An experiment is a file with `get_config(arg)`; `variant` picks among its
functions by that argument. Zero means "never" for every `_steps` of a
repetition, and a placeholder is a field that may stay unset.
"""

from collections.abc import Callable, Sequence

import ml_collections
from ml_collections import config_dict

from r1jax import errors

ConfigDict = ml_collections.ConfigDict
placeholder = config_dict.placeholder


def variant(
    arg: str, variants: dict[str, Callable[[], ConfigDict]]
) -> ConfigDict:
  """The locked config of `variants[arg]`, or the name of the nearest."""
  if arg not in variants:
    raise errors.ConfigError(
        f'--config=...:{arg}: no such variant'
        + errors.nearest(arg, variants, ':'))
  return variants[arg]().lock()


def optional(kind: type, value=None):
  """A field that may be unset."""
  field = placeholder(kind)
  field.set(value)
  return field


def base(name: str, stage: str, steps: int | None = None,
         epochs: float | None = None) -> ConfigDict:
  """What every stage has; `name` is its file and variant, for the report."""
  return ConfigDict(dict(
      name=name,
      stage=stage,
      seed=0,
      # Stages that go through their data have either; steps go first.
      steps=optional(int, steps),
      epochs=optional(float, epochs),
      distributed=False,  # True on a pod whose hosts cannot tell by themselves
      mesh=mesh(),
      rules=RULES,
      lora=lora(),
      optim=optim(),
      checkpoint=checkpoint(stage),
      log=log(),
      eval=evaluation(),
  ))


def pipeline(name: str, report: str | None, stages: dict[str, ConfigDict],
             models: Sequence[str] = ()) -> ConfigDict:
  """Stages that begin from each other: '{sft}' is the workdir of that one.

  And '{base}' one of the `models`, which the user is to name.
  """
  return ConfigDict(dict(
      name=name,
      stage='pipeline',
      report=report,  # written when all have ended
      seed=placeholder(int),  # of all stages; unset: each has its own
      only=placeholder(str),  # run this one alone
      until=placeholder(str),  # or this one, after all that it needs
      dry_run=False,  # say what would be run
      distributed=False,
      models={model: placeholder(str) for model in models},
      stages=stages,
  ))


# Logical axis → mesh axis. Weights are split over `fsdp` along the width, over
# `tensor` along heads, feed-forward and vocabulary, and experts over `expert`.
RULES = (
    ('batch', ('data', 'fsdp')),
    ('length', None),
    ('activation', None),
    ('table', None),  # of the embedding: its gather wants whole rows
    ('layers', None),
    ('embed', 'fsdp'),
    ('vocab', 'tensor'),
    ('heads', 'tensor'),
    ('kv_heads', 'tensor'),
    ('head_size', None),
    ('mlp', 'tensor'),
    ('expert', 'expert'),
    ('router', None),
    ('norm', None),
    ('rank', None),  # of LoRA's factors, and of latents where they are made
    ('latent', 'fsdp'),  # where they are used
)


def mini_model() -> ConfigDict:
  """A Llama of 1.0 million parameters."""
  return ConfigDict(dict(
      vocab=1024, width=128, layers=4, heads=4, kv_heads=2, head_size=32,
      mlp=448, max_len=256, dtype='float32', param_dtype='float32',
      remat='none', scan_layers=False))


def student_model() -> ConfigDict:
  """A Qwen3 of 0.3 million parameters: another architecture, a quarter."""
  return ConfigDict(dict(
      vocab=1024, width=64, layers=4, heads=4, kv_heads=1, head_size=32,
      mlp=192, qk_norm=True, rope_theta=1e6, max_len=256, dtype='float32',
      param_dtype='float32', remat='none', scan_layers=False))


def released_model() -> ConfigDict:
  """The shape is that of the model in `init_from`."""
  return ConfigDict(dict(dtype='float32', param_dtype='float32', remat='full',
                         attention_chunk=placeholder(int)))


def released_vocab() -> ConfigDict:
  """The vocabulary, too."""
  return ConfigDict(dict(kind='model', path='', eos=placeholder(str)))


def mini_vocab() -> ConfigDict:
  return ConfigDict(dict(kind='sentencepiece', path='mini'))


def mesh() -> ConfigDict:
  return ConfigDict(dict(data=1, fsdp=-1, expert=1, tensor=1, context=1))


def lora() -> ConfigDict:
  """LoRA (arXiv 2106.09685); the base stays as it is, and is the reference."""
  return ConfigDict(dict(
      rank=0,  # 0: all parameters are trained
      alpha=32.0,  # the factors' product is multiplied by alpha / rank
      targets=('*',),  # patterns of projections: attention/*, mlp/down
  ))


def optim() -> ConfigDict:
  return ConfigDict(dict(
      lr=1e-4,
      schedule='constant',  # constant | cosine
      warmup_steps=0,
      final_fraction=0.1,  # of lr, at the end of a cosine
      b1=0.9,
      b2=0.95,
      eps=1e-8,
      weight_decay=0.0,
      clip_norm=1.0,  # 0: no clipping
      # A step of the experts' balance (DeepSeek-V3, arXiv 2412.19437, sec. 4.2:
      # 0.001, and 0 for the last 500 of 14.8 T tokens).
      router_bias_rate=0.001,
      max_skipped_steps=5,  # non-finite updates in a row that end the run
  ))


def checkpoint(stage: str) -> ConfigDict:
  # A step that samples takes long: not many are to be lost.
  return ConfigDict(dict(
      every_steps=10 if stage in ('rl', 'sample') else 50, keep=2))


def log() -> ConfigDict:
  return ConfigDict(dict(rollouts_every_steps=1, tensorboard=True))


def preference(**fields) -> ConfigDict:
  """How a reward model learns."""
  return ConfigDict(dict(
      loss='pairwise',  # pairwise (Bradley-Terry) | pointwise (safe?) | dpo
      scores='response',  # response | summary, what stands behind the thinking
      margin=0.0,  # by which the better response is to lead
      batch=8,  # rows a step
      micro_batches=1,
      length=1024,  # tokens of a row: all responses to a prompt, or to several
      balance_length=True,  # the better one is the longer as often as not
      reference=512,  # prompts over whose responses the mean becomes 0
      beta=0.1,  # of dpo (arXiv 2305.18290: 0.1 to 0.5)
      logp_chunk=128,  # of dpo: tokens whose logits are held at once
  ) | fields)


def prompts(task: str | tuple[tuple[str, float], ...] | None, **fields
           ) -> ConfigDict:
  """Where a stage that samples has its prompts from, and how it puts them.

  Of several (task, share) all are mixed.
  """
  return ConfigDict(dict(
      task=task if isinstance(task, tuple) else optional(str, task),
      split='train', template='mini',
      system=placeholder(str),  # message, of template 'chat' alone
      # Few-shot: so many of a source of conversations stand before a prompt.
      shots=0,
      examples=placeholder(str),
      instruction=placeholder(str),  # stands behind every prompt
      num_prompts=4096, seed=0, options=dict()) | fields)


def asked(**fields) -> ConfigDict:
  """Who is asked, as a judge: a model here, or one served elsewhere."""
  return ConfigDict(dict(
      init_from=placeholder(str),  # what origin.find knows
      url=placeholder(str),  # or 'http://HOST/v1', OpenAI-compatible
      model=placeholder(str),  # the name that it is served under
      key_variable=placeholder(str),  # the environment variable with the key
      template='chat',  # of a model here
      prompt=placeholder(str),  # with '{task}'; unset: that of data/verdicts
      prompt_tokens=512,
      response_tokens=256,
      temperature=0.0,
      batch=32,  # texts at a time; of an endpoint, requests at once
      retries=2,
      timeout_seconds=120.0,  # of a request
  ) | fields)


def distill(**fields) -> ConfigDict:
  """A teacher whose next-token logits an lm stage learns from."""
  return ConfigDict(dict(
      init_from=placeholder(str),
      kind='forward',  # forward | reverse KL
      weight=1.0,  # the data's cross-entropy has the rest
      temperature=1.0,
      top_k=0) | fields)  # tokens told apart; 0: all


def keep(**fields) -> ConfigDict:
  """What rejection sampling keeps; see rewards/filters.py."""
  return ConfigDict(dict(
      min_accuracy=1.0,
      format=True,
      max_repetition=optional(float, 0.5),  # share of 4-grams said before
      max_paragraph=placeholder(int),  # characters
      code=False,  # whether code blocks are kept
      reflection=False,  # whether it must look back on what it said
      per_prompt=placeholder(int),
      shard_rows=10_000) | fields)


def part(task: str, rows: int | None = None, order: str = 'random', **options
        ) -> ConfigDict:
  """A part of what is collected: answers, of files or of another source."""
  return ConfigDict(dict(
      task=task,
      rows=optional(int, rows),  # at most so many
      order=order,  # random | curated: various and thoughtful ones first
      options=options))


def test(data: ConfigDict, problems: int, **rewards) -> ConfigDict:
  """One of several tests of a policy; its rewards go before the stage's."""
  return ConfigDict(dict(data=data, problems=problems, rewards=rewards))


def sampling(**fields) -> ConfigDict:
  """What a stage that only samples has in place of `rl`."""
  return ConfigDict(dict(
      prompts=32, group=8, prompt_tokens=64, response_tokens=128,
      temperature=1.0, top_k=0, top_p=1.0, sample_chunk=64) | fields)


def evaluation() -> ConfigDict:
  return ConfigDict(dict(
      every_steps=0,  # besides before the first and after the last step
      split=optional(str, 'heldout'),  # unset: stages of kind lm measure none
      problems=512,
      batch=128,  # problems at a time
      shown=6,  # problems in the report
      samples=1,  # responses a problem, at `temperature`
      temperature=1.0,
      top_k=0,  # 0: all
      top_p=1.0,
  ))


def rl() -> ConfigDict:
  """GRPO as in DeepSeekMath (arXiv 2402.03300), one update a rollout."""
  return ConfigDict(dict(
      prompts=32,
      group=16,  # responses a prompt
      prompt_tokens=64,
      response_tokens=128,
      mini_batches=1,  # updates that share a rollout
      micro_batch=placeholder(int),  # responses; unset: all
      epochs=1,
      temperature=1.0,
      advantage='grpo',  # grpo | rloo | gae, with a section critic (ppo.py)
      # The papers write std and leave its divisor open. Population keeps a
      # group's advantages at mean square 1 whatever its size.
      std='population',  # population | sample | none (Dr. GRPO)
      aggregate='sequence_mean',  # sequence_mean | token_mean | constant
      clip_low=0.2,
      clip_high=0.2,
      dual_clip=placeholder(float),
      kl='k3',  # none | k1 | k2 | k3
      kl_in='loss',  # loss | reward
      beta=0.001,
      measure_kl=False,  # also where beta is 0: a reference is then held
      # Nats a response at which an adaptive beta holds the KL (arXiv
      # 1909.08593, 2.2), in the reward; unset: beta stays.
      kl_target=placeholder(float),
      ref_every_steps=0,  # the reference becomes the policy so often
      # DAPO's dynamic sampling: groups of equal rewards are dropped and
      # replaced from up to so many batches of prompts; 0 keeps them.
      sampling_rounds=0,
      sample_chunk=64,  # response tokens that the KV cache begins with
      logp_chunk=128,  # tokens whose logits are held at once
  ))
