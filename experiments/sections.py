"""Sections of single kinds of stage: data, objectives, tests.

One function per section, which takes other values for its fields by name; see
common.py. Symbols and values are those of DeepSeek-R1 ([v2] arXiv
2501.12948v2) and DeepSeekMath (arXiv 2402.03300) where nothing else is said.
"""

from collections.abc import Mapping
from typing import Any

from experiments import common
from experiments import reward_sections
from r1jax import fields

ConfigDict, section = common.ConfigDict, common.section
field, optional = fields.field, fields.optional
TEMPERATURE = common.TEMPERATURE
Task = str | tuple[tuple[str, float], ...] | None
_PARTS = ('response', 'summary')
_SPLIT = 'split of the source, or a part of one: train[:64]'


###############################################################################
# Data
###############################################################################


def _task(task: Task, what: str) -> fields.Field:
  kind = tuple if isinstance(task, tuple) else str
  return optional(kind, what, value=task)


def _template() -> dict[str, fields.Field]:
  return dict(
      template=field('mini', '', 'prompt template: mini, r1_zero, plain, chat '
                     "(the model's own), or a file"),
      system=optional(str, 'system message, with template chat'))


def texts(task: str | None, **values: Any) -> ConfigDict:
  """What an lm stage reads: documents, or conversations in a template."""
  return section(dict(
      task=_task(task, 'source: mini_corpus, jsonl:PATH, a seqio task, ...'),
      split=field('train', '', _SPLIT),
      seed=field(0, common.SEED, 'seed of sources that draw at random'),
      template=optional(str, 'template of conversations: mini or chat; unset: '
                        'the source has documents'),
      options={}), values)


def preferences(task: str | None = None, **values: Any) -> ConfigDict:
  """What a preference stage reads: graded responses."""
  return section(dict(
      task=_task(task, 'jsonl:PATH: prompts with responses and grades, or with '
                 "chosen and rejected, or HH's pairs"),
      split=field('train', '', _SPLIT), **_template(),
      options={}), values)


def prompts(task: Task, **values: Any) -> ConfigDict:
  """The prompts of a stage that samples, and their template."""
  return section(dict(
      **_questions(task), split=field('train', '', _SPLIT),
      num_prompts=field(4096, '>= 1', 'at most so many prompts')), values)


def questions(task: Task, **values: Any) -> ConfigDict:
  """The prompts of a test, from config.eval.split; see `test`."""
  return section(_questions(task), values)


def _questions(task: Task) -> dict[str, Any]:
  return dict(
      task=_task(
          task, 'source: mini_reasoning, jsonl:PATH, reasoning_gym:NAME, ...; '
          'or several, ((task, rate), ...), mixed by rate'),
      **_template(),
      shots=field(0, '>= 0', 'worked examples before every prompt (few-shot)'),
      examples=optional(str, 'source of the worked examples'),
      instruction=optional(str, 'text appended to every prompt'),
      seed=field(0, common.SEED, 'seed of sources that draw at random, and of '
                 'the mixture'),
      options={})


###############################################################################
# Language modelling, preferences
###############################################################################


def _micro_batches() -> fields.Field:
  return field(
      1, '>= 1', 'parts of a batch, computed in turn, to save memory')


def lm(**values: Any) -> ConfigDict:
  """Next-token training on packed rows."""
  return section(dict(
      batch=field(16, '>= 1', 'rows per step'),
      length=field(256, '>= 2', 'tokens per row, into which texts are packed'),
      micro_batches=_micro_batches(),
      logp_chunk=field(
          64, '>= 1', 'tokens whose logits are held at once, to save memory'),
      prompt_weight=optional(
          float, "weight in the loss of tokens that are not the assistant's; "
          "unset: the source has documents", '>= 0', 0.0)), values)


def distill(**values: Any) -> ConfigDict:
  """A teacher whose next-token logits an lm stage learns from."""
  return section(dict(
      init_from=optional(str, "the teacher; it has the student's vocabulary"),
      kind=field('forward', ('forward', 'reverse'), 'KL(teacher || student), '
                 'or the reverse'),
      weight=field(1.0, '> 0, <= 1', "weight of the divergence; the data's "
                   "cross-entropy has the rest"),
      temperature=field(1.0, TEMPERATURE, 'temperature of both distributions'),
      top_k=field(0, '>= 0', "the KL is over the teacher's k most likely "
                  'tokens, all others as one; 0: over all tokens')), values)


def preference(**values: Any) -> ConfigDict:
  """How a reward model learns from grades or labels, or a policy by DPO."""
  return section(dict(
      loss=field('pairwise', ('pairwise', 'pointwise', 'stepwise', 'dpo'),
                 'Bradley-Terry on pairs; safe or unsafe, one by one; each '
                 'step of a response; or DPO of a policy'),
      scores=field('response', _PARTS, 'what is scored: all of a response, or '
                   'what follows its thinking'),
      margin=field(
          0.0, '>= 0', 'score by which the better response should lead'),
      batch=field(8, '>= 1', 'rows per step'),
      micro_batches=_micro_batches(),
      length=field(1024, '>= 2', 'tokens per row, which holds one or more '
                   'prompts, each with all its responses'),
      balance_length=field(True, '', 'leave prompts out until the better '
                           'response is the longer one in half of them'),
      reference=field(512, '>= 1', 'prompts over whose responses the mean '
                      'score is made 0 after training'),
      separator=optional(str, 'stepwise: ends each step, whose score is read '
                         'there; unset: a line break'),
      # Of DPO, arXiv 2305.18290: 0.1 to 0.5.
      beta=field(0.1, '> 0', 'dpo: beta, weight of the KL to the reference'),
      logp_chunk=field(
          128, '>= 1', 'dpo: tokens whose logits are held at once')), values)


###############################################################################
# Reinforcement learning
###############################################################################


def rl(**values: Any) -> ConfigDict:
  """GRPO as in DeepSeekMath (arXiv 2402.03300), one update per rollout."""
  return section(_rl(), values)


def timed_rl(**values: Any) -> ConfigDict:
  """The fields of `rl` that a benchmark uses: reference and beta are fixed."""
  declared = _rl()
  for name in ('ref_every_steps', 'kl_target', 'process', 'top_k', 'top_p',
               'replay_routing', 'mask_truncated', 'score_while_sampling',
               'partial_tokens', 'in_flight'):
    del declared[name]
  return section(declared, values)


def _rl() -> dict[str, fields.Field]:
  return dict(
      prompts=field(32, '>= 1', 'prompts per step, each with its group; their '
                    'responses divide over mesh data*fsdp*expert'),
      group=field(16, '>= 1', 'responses per prompt, G'),
      **_lengths(),
      mini_batches=field(1, '>= 1', 'parts of a rollout, one update each'),
      micro_batch=optional(int, 'rows of responses at a time in scoring and '
                           'updates, to save memory, a multiple of mesh '
                           'data*fsdp*expert (times packed_rows, which need '
                           'it); unset: all', '>= 1'),
      packed_rows=optional(
          int, 'reference, critic and update put several whole responses to a '
          'prompt into a row of response_tokens; so many rows share a copy of '
          'their prompt, and micro_batch counts rows; 1 where responses are '
          'much shorter; unset: a row for each response', '>= 1'),
      epochs=field(1, '>= 1', 'passes over a rollout, mu of DeepSeekMath'),
      temperature=field(1.0, TEMPERATURE, 'temperature of the policy, in '
                        'sampling and in the loss'),
      # DeepSeek-V3.2, arXiv 2512.02556, 3.1. The tokens kept are stored.
      top_k=field(0, '>= 0, <= 512', 'the policy is a softmax over its k most '
                  'likely tokens, in sampling and, over the same ones, in the '
                  'loss; 0: over all'),
      top_p=field(1.0, '> 0, <= 1', 'of these, over the most likely of this '
                  'total probability; needs top_k; 1: over all k'),
      advantage=field('grpo', ('grpo', 'rloo', 'gae'), 'estimator of the '
                      'advantage, A; gae with a section critic'),
      # DeepSeekMath, 4.1.3.
      process=optional(str, 'process supervision: the name of a model of '
                       'rewards.models that was trained on steps; the '
                       'advantages of its rewards of steps are added; unset: '
                       'none'),
      # The papers write std and leave its divisor open. Population keeps a
      # group's advantages at mean square 1 whatever its size.
      std=field(
          'population', ('population', 'sample', 'none'),
          "standard deviation that a group's advantages are divided by; none: "
          'Dr. GRPO'),
      aggregate=field(
          'sequence_mean', ('sequence_mean', 'token_mean', 'constant'),
          'the loss is averaged over responses (GRPO), over tokens (DAPO), or '
          'divided by a constant (Dr. GRPO)'),
      # GSPO, arXiv 2507.18071; CISPO, arXiv 2506.13585.
      ratio=field('token', ('token', 'sequence'), 'what is compared with the '
                  'policy that sampled: each token, or the mean of its '
                  'response (GSPO)'),
      surrogate=field('clip', ('clip', 'cispo'), "PPO's clipped surrogate, or "
                      'a clipped weight that stops no gradient (CISPO)'),
      clip_low=field(
          0.2, '> 0', 'epsilon: the ratio is clipped below 1 - clip_low'),
      clip_high=field(
          0.2, '> 0', 'epsilon: the ratio is clipped above 1 + clip_high'),
      # As TRL names them; TIS: token_truncate at 2; IcePop, arXiv 2510.18855:
      # token_mask from 0.5 to 5.
      correction=optional(
          str, 'importance weights of tokens or sequences, for a sampler whose '
          'probabilities differ from those of the update (bfloat16, experts): '
          'truncated at the cap, or 0 outside floor and cap; unset: none',
          ('token_truncate', 'token_mask', 'sequence_truncate',
           'sequence_mask')),
      correction_cap=field(2.0, '>= 1', 'largest weight of a correction'),
      correction_floor=field(
          0.0, '>= 0, <= 1', 'smallest weight of a correction that masks'),
      # R3, arXiv 2510.11370.
      replay_routing=field(
          False, '', 'of a mixture of experts: the update uses those that were '
          'chosen for each token when it was sampled'),
      dual_clip=optional(float, 'largest ratio where the advantage is negative '
                         '(arXiv 1912.09729); unset: no bound', '> 1'),
      entropy_bonus=field(
          0.0, '>= 0', "weight of the policy's entropy in the objective"),
      # DAPO, arXiv 2503.14476, 3.4.
      mask_truncated=field(
          False, '', 'learn nothing from responses that were cut'),
      kl=field('k3', ('none', 'k1', 'k2', 'k3'), 'estimator of the KL to the '
               'reference'),
      kl_in=field('loss', ('loss', 'reward'), 'where the KL is: in the loss '
                  '(GRPO) or in the reward (PPO)'),
      beta=field(0.001, '>= 0', 'beta, weight of the KL'),
      measure_kl=field(False, '', 'measure the KL where beta is 0, too, which '
                       'keeps a reference'),
      # arXiv 1909.08593, 2.2.
      kl_target=optional(float, 'KL in nats per response that beta adapts to; '
                         'unset: beta is constant', '> 0'),
      ref_every_steps=field(0, '>= 0', 'the policy becomes the reference every '
                            'so many steps; 0: never'),
      # DAPO, arXiv 2503.14476, eq. 11.
      sampling_rounds=field(
          0, '>= 0', 'dynamic sampling (DAPO): a step samples up to so many '
          'batches of prompts to replace groups of equal rewards; 0: off'),
      **_early(),
      # Kimi k1.5, arXiv 2501.12599, 2.6.2; AReaL, arXiv 2505.24298.
      partial_tokens=optional(
          int, 'partial rollouts: a step draws at most so many tokens of a '
          'response, C, but for groups that must end now, and goes on once it '
          'has prompts complete groups; what is unfinished goes on in the '
          'next, and is at most ceil(response_tokens / C) + '
          'ceil(in_flight / prompts) - 2 steps old when trained on; unset: off',
          '>= 1'),
      in_flight=optional(
          int, 'with partial_tokens: prompts that are being sampled, each with '
          'its group; unset: twice prompts', '>= 1'),
      logp_chunk=field(
          128, '>= 1', 'tokens whose logits are held at once, to save memory'))


def sampling(**values: Any) -> ConfigDict:
  """The section `rl` of a stage that samples and scores, and trains nothing.
  """
  return section(_sampling() | _early(), values)


def searched(**values: Any) -> ConfigDict:
  """That of a search, whose responses are there all at once."""
  return section(_sampling(), values)


def _sampling() -> dict[str, fields.Field]:
  return dict(
      prompts=field(32, '>= 1', 'prompts per step, each with its group'),
      group=field(8, '>= 1', 'responses per prompt'),
      temperature=field(1.0, TEMPERATURE, 'sampling temperature'),
      **common.truncation(), **_lengths())


def _early() -> dict[str, fields.Field]:
  return dict(score_while_sampling=field(
      False, '', 'responses that have ended are scored by rule while the '
      'others are sampled, in pieces, also in evaluations; the same results, '
      'sooner where rewards take time'))


def lengths(**values: Any) -> ConfigDict:
  """The fields of `rl` in an `evaluate` stage; config.eval has its sampling."""
  return section(_lengths() | _early(), values)


def _lengths() -> dict[str, fields.Field]:
  return dict(
      prompt_tokens=field(
          64, '>= 1', 'longest prompt; longer ones are left out and counted'),
      response_tokens=field(128, '>= 1', 'responses are cut at this length'),
      sample_chunk=field(64, '>= 1', 'response tokens that the KV cache holds '
                         'at first; it doubles when full, and after 1,024 '
                         'holds all; in a tree search it holds all from the '
                         'start'),
      slots=optional(int, 'responses in flight at once, a multiple of mesh '
                     'data*fsdp*expert; the next that waits takes the place of '
                     'one that has ended; unset: all', '>= 1'),
      cpu_threads=field(
          1, '>= 1', 'where the mesh is one CPU, its prompts are sampled (but '
          'for score_while_sampling and partial_tokens), and scored by '
          'reference and critic (but for packed_rows), in so many equal parts '
          'at once, or as many fewer as divide them; best is a thread for each '
          'core'))


def critic(**values: Any) -> ConfigDict:
  """GAE (arXiv 1506.02438) and the critic that it takes values from."""
  return section(dict(
      init_from=optional(str, "a reward model to start from; unset: the "
                         "policy's layers under a new head"),
      gamma=field(1.0, '>= 0, <= 1', 'gamma, discount of later rewards'),
      # 0.95 was far worse in the paper's comparison ([v2] A.3).
      lam=field(1.0, '>= 0, <= 1', 'lambda of GAE'),
      whiten=field(True, '', 'give advantages mean 0 and variance 1'),
      value_clip=optional(float, 'how far the updates of a rollout may move a '
                          'value (PPO); unset: no bound', '> 0', 0.2),
      lora=common.lora(), optim=common.optim(lr=1e-3, warmup_steps=3)), values)


###############################################################################
# Collections, tests, benchmarks
###############################################################################


def part(task: str, rows: int | None = None, order: str = 'random',
         **options: Any) -> ConfigDict:
  """A part of a collection: responses, from files or another source."""
  return section(dict(
      task=field(task, '', 'source of prompts with responses: jsonl:PATH, '
                 'mini_general, ...'),
      rows=optional(int, 'at most so many responses; unset: all', '>= 1'),
      order=field('random', ('random', 'curated'), 'which are taken first; '
                  'curated: diverse and reflective ones'),
      options={}), dict(rows=rows, order=order, options=options))


def test(data: ConfigDict, problems: int,
         settings: Mapping[str, Any] | None = None, **changed: Any
         ) -> ConfigDict:
  """One of several tests.

  Args:
    data: `questions`.
    problems: at most so many.
    settings: of its sampling, in place of config.eval's and config.rl's.
    **changed: fields of its rewards, which override those of the stage.
  """
  other = lambda kind, name, bound='': optional(
      kind, f'in place of config.{name}', bound)
  own = reward_sections.rewards(**changed)
  for name in set(own) - set(changed):
    del own[name]
  for part in set(own.get('weights', ())) - set(changed.get('weights', ())):
    del own.weights[part]
  return section(dict(
      data=data, problems=field(problems, '>= 1', 'prompts of the test'),
      split=other(str, 'eval.split'),
      samples=other(int, 'eval.samples', '>= 1'),
      temperature=other(float, 'eval.temperature', common.OR_GREEDY),
      top_k=other(int, 'eval.top_k', '>= 0'),
      top_p=other(float, 'eval.top_p', '> 0, <= 1'),
      prompt_tokens=other(int, 'rl.prompt_tokens', '>= 1'),
      response_tokens=optional(
          int, 'in place of config.rl.response_tokens; at most what the model '
          'has room for', '>= 1'),
      rewards=own), settings or {})


def bench(**values: Any) -> ConfigDict:
  """What is timed."""
  return section(dict(
      steps=field(7, '>= 1', 'steps in total'),
      warmup=field(2, '>= 1', 'first steps, left out of the medians'),
      mean_length=optional(
          int, 'of responses, which end by a token, log-normal, and are cut at '
          'rl.response_tokens; unset: none ends before', '>= 1'),
      matmul=field(2048, '>= 1', 'size of the square product: the yardstick'),
      profile=optional(str, 'directory for the trace of one more step; unset: '
                       'none')), values)
