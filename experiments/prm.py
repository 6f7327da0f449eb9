"""Process reward models, which the paper tried and gave up, in miniature.

    python -m r1jax.main --config=experiments/prm.py:mini --workdir=/tmp/prm

Steps of the base model's responses are labelled by Monte-Carlo rollouts
(Math-Shepherd, arXiv 2312.08935), a process reward model learns the labels, and
an outcome reward model learns from the same responses which are correct. Both
rank the base's samples (best of N, compared with majority vote); then GRPO
maximises the process reward model's scores of steps (DeepSeekMath, arXiv
2402.03300, 4.1.3), compared with GRPO on the rule. report.html shows whether
the maximised score and the accuracy that it stands for diverge: the reward
hacking for which DeepSeek-R1 gave up process reward models ([v1] arXiv
2501.12948v1, 4.2). --config.stages.grpo_process.rl.process=None and
.rewards.weights.prm=1.0 reward the lowest step score of a response instead.
"""

from experiments import common
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  return common.pipeline('prm', dict(
      labels=labels(), prm=process_model(), orm=outcome_model(),
      best_of_n=best_of_n(),
      grpo_process=grpo(process='prm'), grpo_rule=grpo(accuracy=1.0)))


def labels() -> common.ConfigDict:
  """Four responses to each prompt, and eight completions after each step."""
  return common.base(
      'step_labels', init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_reasoning', num_prompts=256, seed=1),
      rl=sections.sampling(prompts=64, group=4, **_lengths()),
      rewards=reward_sections.rewards(weights=dict(format=0.0)),
      labelling=sample_sections.labelling(
          cut='sentences', completions=8, batch=64))


def process_model() -> common.ConfigDict:
  # Rows are split, not prompts: responses to the prompt at the boundary, up to
  # four, may be on both sides.
  return _reward_model(
      sections.preferences(
          'jsonl:{labels}/steps.jsonl', split='train[:-128]',
          options=dict(labels='soft')),
      sections.preference(loss='stepwise', batch=8, length=256,
                          balance_length=False),
      dict(split='train[-128:]', problems=128))


def outcome_model() -> common.ConfigDict:
  return _reward_model(
      sections.preferences(
          'jsonl:{labels}/preferences.jsonl', split='train[:-32]'),
      sections.preference(loss='pointwise', batch=4, length=512,
                          balance_length=False),
      dict(split='train[-32:]', problems=32))


def _reward_model(data, preference, held_out) -> common.ConfigDict:
  return common.base(
      'preference', init_from='mini', model=common.mini_model(scalar=True),
      vocab=common.mini_vocab(), epochs=4., data=data, preference=preference,
      optim=dict(lr=1e-3, schedule='cosine', warmup_steps=5), eval=held_out)


def _lengths() -> dict[str, int]:
  return dict(prompt_tokens=32, response_tokens=96, sample_chunk=48,
              cpu_threads=2)


def _models(**names: str) -> dict[str, common.ConfigDict]:
  return dict(
      prm=reward_sections.reward_model(
          init_from='{prm}', cut='sentences', combine='min'),
      **{name: reward_sections.reward_model(init_from=path)
         for name, path in names.items()})


def best_of_n() -> common.ConfigDict:
  """The base's samples, scored by both models."""
  return common.base(
      'evaluate', init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(), rl=sections.lengths(**_lengths()),
      rewards=reward_sections.rewards(
          weights=dict(format=0.0), models=_models(orm='{orm}')),
      tests=dict(samples=sections.test(
          sections.questions('mini_reasoning'), 128)),
      eval=dict(samples=32, batch=32))


def grpo(process: str | None = None, **weights: float) -> common.ConfigDict:
  """GRPO from the base; `weights` are all that a response is rewarded for."""
  return common.base(
      'rl', steps=40, init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(), data=sections.prompts('mini_reasoning'),
      rl=sections.rl(
          prompts=16, group=8, micro_batch=32, packed_rows=2, logp_chunk=48,
          process=process, **_lengths()),
      rewards=reward_sections.rewards(
          weights=dict(accuracy=0.0, format=0.0, prm=0.0) | weights,
          models=_models()),
      optim=dict(lr=3e-4, warmup_steps=5), eval=dict(problems=256, samples=2))
