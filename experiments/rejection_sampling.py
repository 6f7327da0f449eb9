"""Rejection sampling: a policy's own responses, those that are right and read.

    python -m r1jax.main --config=experiments/rejection_sampling.py:mini \\
        --config.init_from=/tmp/r1_zero --workdir=/tmp/rejection

Several responses to each prompt, of which the right ones are kept that are in
one language, the prompt's, and have no code block, no long paragraph and no
loop ([v1] arXiv 2501.12948v1, 2.3.3): kept-*.jsonl, each line with where it
comes from, and a table of why the rest was dropped. Verifiers of kind 'judge'
(--config.data.options.verifier=judge) ask a model for the verdict:
--config.rewards.judge.init_from, or .url and .model of an endpoint.
"""

from experiments import common
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
          sample_chunk=80),
      rewards=sections.rewards(), keep=sections.keep(per_prompt=2))
