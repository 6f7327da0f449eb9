"""Supervised fine-tuning: a released model learns from worked answers.

    python -m r1jax.main --config=experiments/sft.py:smollm2 \
        --config.data.task=jsonl:gsm8k/train.jsonl --workdir=/tmp/sft

The file has a question and an answer a line, as GSM8K's, or messages. The loss
is on the answers alone. --config.lora.rank=16 trains factors.
"""

from experiments import common


def get_config(arg: str = 'smollm2') -> common.ConfigDict:
  return common.variant(arg, {'smollm2': smollm2})


def smollm2() -> common.ConfigDict:
  """SmolLM2-135M-Instruct on GSM8K's 7,473 training answers."""
  config = common.base('sft.py:smollm2', 'lm', steps=100)
  config.init_from = 'smollm2'
  config.model = common.released_model()
  config.vocab = common.released_vocab()
  config.data = dict(task=common.placeholder(str), split='train', seed=0,
                     template='chat', options=dict())
  config.lm = dict(batch=8, length=512, micro_batches=4, logp_chunk=64,
                   prompt_weight=0.0)
  config.optim.update(lr=1e-4, schedule='cosine', warmup_steps=5)
  return config
