"""Reward models: a fine-tuned model learns to score responses.

    python -m r1jax.main --config=experiments/reward_model.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/reward_model \
        --config.data.task=jsonl:/tmp/preferences/preferences.jsonl

A line of the file has a prompt, responses and grades; or a prompt, chosen and
rejected; or one of HH's pairs of conversations (r1jax/data/preferences.py).
`:mini` learns the taste of the mini world's reader. `:helpful` and `:harmless`
have the published values of [v2] arXiv 2501.12948v2, 3.1, and need a pod: pairs
whose summaries are scored, and single responses, safe or unsafe, scored whole.
`:hh` is SmolLM2-135M on the harmless pairs of Anthropic's HH: accuracy 67.2 %
[63.0, 71.2] on 500 held-out pairs, 70 to 90 minutes on two cores.
"""

from experiments import common
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {
      'mini': mini, 'helpful': helpful, 'harmless': harmless, 'hh': hh})


def mini(init_from: str | None = None, task: str | None = None
        ) -> common.ConfigDict:
  return common.base(
      'preference', epochs=2., init_from=init_from,
      model=common.mini_model(scalar=True), vocab=common.mini_vocab(),
      data=sections.preferences(task, template='mini', split='train[:560]'),
      # The reader prefers several lines: length is part of the taste.
      preference=sections.preference(
          batch=4, length=1024, balance_length=False),
      optim=dict(lr=1e-3, schedule='cosine', warmup_steps=5),
      eval=dict(split='train[560:]', problems=80))


def helpful() -> common.ConfigDict:
  """[v2] 3.1, of pairs."""
  return common.base(
      'preference', epochs=1.,
      model=common.released_model(scalar=True, attention_chunk=512),
      vocab=common.vocab(), data=sections.preferences(template='chat'),
      preference=sections.preference(
          scores='summary',  # [v2] 3.1: the final summary alone
          length=2 * 8192,  # [v2] 3.1: 8,192 tokens per response
          batch=256),  # [v2] 3.1: pairs; a row of full length holds one
      optim=dict(lr=6e-6),  # [v2] 3.1
      eval=dict(split='test'))


def harmless() -> common.ConfigDict:
  """[v2] 3.1, of single responses."""
  return common.base(
      'preference', epochs=1.,
      model=common.released_model(scalar=True, attention_chunk=512),
      vocab=common.vocab(), data=sections.preferences(template='chat'),
      preference=sections.preference(
          loss='pointwise', length=8192, batch=256, balance_length=False),
      optim=dict(lr=6e-6),  # [v2] 3.1
      eval=dict(split='test'))


def hh() -> common.ConfigDict:
  """SmolLM2-135M-Instruct on 1,800 of HH's harmless pairs, tested on 500.

  Of the first 1,804 two differ before the last answer and two do not fit.
  """
  return common.base(
      'preference', epochs=1., init_from='smollm2',
      model=common.released_model(
          scalar=True, attention_chunk=256, remat='none'),
      vocab=common.vocab(),
      data=sections.preferences(template='chat', split='train[:1804]'),
      preference=sections.preference(
          batch=4, micro_batches=4, length=1024, balance_length=False),
      optim=dict(lr=2e-5, schedule='cosine', warmup_steps=5),
      eval=dict(split='train[1804:]', problems=500))
