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
      num_prompts=field(4096, '>= 1', 'the most that are read')), values)


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
  return field(1, '>= 1', 'gradient accumulation: parts of a batch, computed '
               'one after the other to save memory')


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
                 'or KL(student || teacher)'),
      weight=field(1.0, '> 0, <= 1', 'weight of the KL in the loss; the '
                   "data's cross-entropy has weight 1 - this"),
      temperature=field(1.0, TEMPERATURE, 'temperature of both distributions'),
      top_k=field(0, '>= 0', "the KL is over the teacher's k most likely "
                  'tokens and the rest as one; 0: over all tokens')), values)


def preference(**values: Any) -> ConfigDict:
  """How a reward model learns from grades or labels, or a policy by DPO."""
  return section(dict(
      loss=field('pairwise', ('pairwise', 'pointwise', 'stepwise', 'dpo'),
                 'a reward model on pairs (Bradley-Terry), on responses (safe '
                 'or not), or on their steps; or DPO of a policy'),
      scores=field('response', _PARTS, 'what is scored: all of a response, or '
                   'only what follows the thinking'),
      margin=field(
          0.0, '>= 0', 'score by which the better response should lead'),
      batch=field(8, '>= 1', 'rows per step'),
      micro_batches=_micro_batches(),
      length=field(1024, '>= 2', 'tokens per row, which holds one or more '
                   'prompts, each with all its responses'),
      balance_length=field(True, '', 'leave prompts out until the better '
                           'response is the longer one in half of them'),
      reference=field(512, '>= 1', 'after training, scores are shifted to mean '
                      '0 over the responses to this many prompts'),
      separator=optional(str, 'stepwise: text at the end of each step, where '
                         'its score is read; unset: a line break'),
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
      prompts=field(32, '>= 1', 'prompts per step; prompts * group responses '
                    'are divided over mesh data*fsdp*expert'),
      group=field(16, '>= 1', 'responses per prompt, G'),
      **_lengths(),
      mini_batches=field(1, '>= 1', 'parts of a rollout, one update each'),
      micro_batch=optional(int, 'responses computed at once, over all devices, '
                           'in scoring and updates, to save memory: a multiple '
                           'of mesh data*fsdp*expert (times packed_rows); '
                           'unset: scoring takes the whole rollout, an update '
                           'its mini-batch', '>= 1'),
      packed_rows=optional(
          int, 'sequence packing in reference, critic and update: whole '
          'responses to one prompt share rows of response_tokens, and this '
          'many rows share one copy of the prompt; micro_batch, which must be '
          'set, then counts rows; 1 if responses are much shorter than the '
          'limit; unset: one row per response', '>= 1'),
      epochs=field(1, '>= 1', 'passes over a rollout, mu of DeepSeekMath'),
      temperature=field(1.0, TEMPERATURE, 'temperature of the policy, in '
                        'sampling and in the loss'),
      # DeepSeek-V3.2, arXiv 2512.02556, 3.1. The tokens kept are stored.
      top_k=field(0, '>= 0, <= 512', 'the policy is a softmax over its k most '
                  'likely tokens, in sampling and, over the same ones, in the '
                  'loss; 0: over all'),
      top_p=field(1.0, '> 0, <= 1', 'of these k tokens, over the most likely '
                  'of this total probability; needs top_k; 1: over all k'),
      advantage=field('grpo', ('grpo', 'rloo', 'gae'), 'estimator of the '
                      'advantage, A; gae needs a section critic'),
      # DeepSeekMath, 4.1.3.
      process=optional(
          str, 'process supervision: the name of a process reward model in '
          'rewards.models, whose step advantages are added; only with '
          'advantage=grpo and sampling_rounds=0; unset: none'),
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
      ratio=field('token', ('token', 'sequence'), 'importance ratio to the '
                  'policy that sampled: of each token, or its geometric mean '
                  'over the response (GSPO)'),
      surrogate=field('clip', ('clip', 'cispo'), "PPO's clipped surrogate; or "
                      'the clipped ratio as a constant weight, so that every '
                      'token has a gradient (CISPO, without dual_clip)'),
      clip_low=field(0.2, '> 0', 'the ratio is clipped below 1 - clip_low'),
      clip_high=field(0.2, '> 0', 'the ratio is clipped above 1 + clip_high'),
      # As TRL names them; TIS: token_truncate at 2; IcePop, arXiv 2510.18855:
      # token_mask from 0.5 to 5.
      correction=optional(
          str, 'importance-sampling correction for the mismatch of sampler and '
          'trainer (TIS, IcePop): weights of tokens or sequences, truncated at '
          'correction_cap, or 0 outside correction_floor and _cap; unset: none',
          ('token_truncate', 'token_mask', 'sequence_truncate',
           'sequence_mask')),
      correction_cap=field(2.0, '>= 1', 'largest weight of a correction'),
      correction_floor=field(
          0.0, '>= 0, <= 1', 'smallest weight of a correction that masks'),
      # R3, arXiv 2510.11370.
      replay_routing=field(
          False, '', 'mixture of experts: the update uses the experts that '
          'were chosen for each token when it was sampled'),
      dual_clip=optional(float, 'largest ratio where the advantage is negative '
                         '(arXiv 1912.09729); unset: no bound', '> 1'),
      entropy_bonus=field(
          0.0, '>= 0', "weight of the policy's entropy in the objective"),
      # DAPO, arXiv 2503.14476, 3.4.
      mask_truncated=field(
          False, '', 'leave truncated responses out of the loss'),
      kl=field('k3', ('none', 'k1', 'k2', 'k3'), 'estimator of the KL to the '
               'reference'),
      kl_in=field('loss', ('loss', 'reward'), 'where the KL is: in the loss '
                  '(GRPO) or in the reward (PPO)'),
      beta=field(0.001, '>= 0', 'beta, weight of the KL'),
      measure_kl=field(False, '', 'measure the KL even if beta is 0; this '
                       'keeps a reference model'),
      # arXiv 1909.08593, 2.2.
      kl_target=optional(float, 'beta adapts to hold the KL at this many nats '
                         'per response; unset: beta is constant', '> 0'),
      ref_every_steps=field(0, '>= 0', 'the policy becomes the reference once '
                            'in this many steps; 0: never'),
      # DAPO, arXiv 2503.14476, eq. 11.
      sampling_rounds=field(
          0, '>= 0', 'dynamic sampling (DAPO): a step samples up to this many '
          'batches of prompts to replace groups of equal rewards; 0: off'),
      **_early(),
      # Kimi k1.5, arXiv 2501.12599, 2.6.2; AReaL, arXiv 2505.24298.
      partial_tokens=optional(
          int, 'partial rollouts: a step samples at most this many tokens of a '
          'response, C (all of a group that is due), until enough groups are '
          'complete to train on; the others go on in the next step; tokens '
          'trained on are at most ceil(response_tokens / C) + '
          'ceil(in_flight / prompts) - 2 steps old; not with sampling_rounds, '
          'replay_routing, score_while_sampling or in a plan; unset: off',
          '>= 1'),
      in_flight=optional(
          int, 'with partial_tokens: prompts whose groups are being sampled; '
          'unset: twice prompts', '>= 1'),
      logp_chunk=field(
          128, '>= 1', 'tokens whose logits are held at once, to save memory'))


def sampling(**values: Any) -> ConfigDict:
  """The section `rl` of a stage that samples and scores but does not train."""
  return section(_sampling() | _early(), values)


def searched(**values: Any) -> ConfigDict:
  """The same for a search, which finishes all responses at once."""
  return section(_sampling(), values)


def _sampling() -> dict[str, fields.Field]:
  return dict(
      prompts=field(32, '>= 1', 'prompts per step, each with its group'),
      group=field(8, '>= 1', 'responses per prompt'),
      temperature=field(1.0, TEMPERATURE, 'sampling temperature'),
      **common.truncation(), **_lengths())


def _early() -> dict[str, fields.Field]:
  return dict(score_while_sampling=field(
      False, '', 'score finished responses by rule while others are still '
      'being sampled, in evaluations as well; the same results, sooner if '
      'rewards are slow'))


def lengths(**values: Any) -> ConfigDict:
  """The fields of `rl` in an `evaluate` stage; config.eval has its sampling."""
  return section(_lengths() | _early(), values)


def _lengths() -> dict[str, fields.Field]:
  return dict(
      prompt_tokens=field(
          64, '>= 1', 'longest prompt; longer ones are left out and counted'),
      response_tokens=field(128, '>= 1', 'a longer response is truncated'),
      sample_chunk=field(64, '>= 1', 'response tokens that the KV cache has '
                         'room for at first; the room doubles when full, and '
                         'beyond 1,024, or in a tree, is for response_tokens'),
      slots=optional(int, 'continuous batching: responses in flight at once, '
                      'each replaced by the next when it ends; a multiple of '
                      'the devices that split the batch while sampling (mesh '
                      "data*fsdp*expert, and the axes that sampling_rules have "
                      "for 'batch'); unset: all", '>= 1'),
      cpu_threads=field(
          1, '>= 1', 'on a single CPU device: threads, each of which samples '
          'and scores an equal part of the prompts (fewer if they do not '
          'divide; one to sample with score_while_sampling or partial_tokens, '
          'one to score packed rows); set it to the number of cores'))


def critic(**values: Any) -> ConfigDict:
  """GAE (arXiv 1506.02438) and the critic that it takes values from."""
  return section(dict(
      init_from=optional(str, "a reward model to start from; unset: the "
                         "policy's layers under a new head"),
      gamma=field(1.0, '>= 0, <= 1', 'gamma, discount of later rewards'),
      # 0.95 was far worse in the paper's comparison ([v2] A.3).
      lam=field(1.0, '>= 0, <= 1', 'lambda of GAE'),
      whiten=field(True, '', 'normalise advantages to mean 0 and variance 1'),
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
      rows=optional(int, 'the most responses it has; unset: all', '>= 1'),
      order=field('random', ('random', 'curated'), 'which are taken first; '
                  'curated: diverse and reflective ones'),
      options={}), dict(rows=rows, order=order, options=options))


def test(data: ConfigDict, problems: int,
         settings: Mapping[str, Any] | None = None, **changed: Any
         ) -> ConfigDict:
  """One of several tests.

  Args:
    data: `questions`.
    problems: the most that are read.
    settings: of its sampling, instead of config.eval's and config.rl's.
    **changed: fields of its rewards, which override those of the stage.
  """
  other = lambda kind, name, bound='': optional(
      kind, f'instead of config.{name}', bound)
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
          int, 'instead of config.rl.response_tokens; at most what the model '
          'has room for', '>= 1'),
      rewards=own), settings or {})


def bench(**values: Any) -> ConfigDict:
  """What is timed."""
  return section(dict(
      steps=field(7, '>= 1', 'steps in total'),
      warmup=field(2, '>= 1', 'first steps, left out of the medians'),
      mean_length=optional(
          int, 'mean tokens of a response; lengths are log-normal, truncated '
          'at rl.response_tokens; unset: all have that length', '>= 1'),
      matmul=field(2048, '>= 1', 'size n of the n x n matrix product that is '
                   'timed as a yardstick'),
      profile=optional(str, 'directory for the trace of one more step; unset: '
                       'none')), values)
