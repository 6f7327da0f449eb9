"""Rejection sampling: a policy's own correct and readable responses.

    python -m r1jax.main --config=experiments/rejection_sampling.py:mini \\
        --config.init_from=/tmp/r1_zero --workdir=/tmp/rejection

Of several responses to each prompt it keeps the correct ones that use only the
prompt's language and have no code block and no repetition loop; with
--config.keep.max_paragraph no long paragraph either ([v1] arXiv 2501.12948v1,
2.3.3). It writes kept-*.jsonl, each line with its source, and kept.json, which
counts the responses dropped for each reason. The verifier 'judge'
(--config.data.options.verifier=judge) asks a model for the verdict:
--config.rewards.judge.init_from, or .url and .model of an endpoint.
"""

from experiments import common
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  """Four responses each to 512 problems of the mini world."""
  return common.base(
      'sample', model=common.mini_model(), vocab=common.mini_vocab(),
      data=sections.prompts('mini_reasoning', num_prompts=512, seed=1),
      rl=sections.sampling(
          prompts=64, group=4, prompt_tokens=32, response_tokens=160,
          sample_chunk=80, cpu_threads=2),
      rewards=reward_sections.rewards(),
      keep=sample_sections.keep(per_prompt=2))
