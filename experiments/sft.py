"""Supervised fine-tuning: a model learns from worked answers.

    python -m r1jax.main --config=experiments/sft.py:mini --workdir=/tmp/sft
    python -m r1jax.main --config=experiments/sft.py:smollm2 \
        --config.data.task=jsonl:gsm8k/{split}.jsonl --workdir=/tmp/sft

`:mini` teaches the mini world's base to write, well and badly, in a minute; it
is the model that RLHF starts from. `:smollm2` takes a file of questions and
answers, such as GSM8K's, or of messages. The loss is on the answers alone;
--config.lora.rank=16 trains LoRA's factors.
"""

from experiments import common
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini, 'smollm2': smollm2})


def mini() -> common.ConfigDict:
  """The mini world's base on writings of every quality."""
  return common.base(
      'lm', epochs=3., init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.texts(
          'mini_writing', template='mini', options=dict(size=4096)),
      lm=sections.lm(batch=16, length=256),
      optim=dict(lr=1e-3, schedule='cosine', warmup_steps=5),
      eval=dict(problems=64))


def smollm2() -> common.ConfigDict:
  """SmolLM2-135M-Instruct on GSM8K's 7,473 training answers."""
  return common.base(
      'lm', steps=100, init_from='smollm2', model=common.released_model(),
      vocab=common.vocab(), data=sections.texts(None, template='chat'),
      lm=sections.lm(batch=8, length=512, micro_batches=4),
      optim=dict(lr=1e-4, schedule='cosine', warmup_steps=5),
      eval=dict(split='test', problems=64))
