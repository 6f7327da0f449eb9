"""What a kind of stage is about: its data, its objective, its rewards.

One function a section, which takes other values for its fields by name; see
common.py. Symbols and values are those of DeepSeek-R1 ([v2] arXiv
2501.12948v2) and DeepSeekMath (arXiv 2402.03300) where nothing else is said.
"""

from typing import Any

from experiments import common
from r1jax import fields
from r1jax.rewards import answers
from r1jax.rewards import text_rules

ConfigDict, section = common.ConfigDict, common.section
field, optional = fields.field, fields.optional
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
      template=field('mini', '', 'how a prompt is put: mini, r1_zero, plain, '
                     "or chat, the model's"),
      system=optional(str, 'system message, of template chat'))


def texts(task: str | None, **values: Any) -> ConfigDict:
  """What an lm stage reads: documents, or conversations in a template."""
  return section(dict(
      task=_task(task, 'source: mini_corpus, jsonl:PATH, a seqio task, ...'),
      split=field('train', '', _SPLIT),
      seed=field(0, common.SEED, 'seed of sources that draw at random'),
      template=optional(str, 'how conversations are put: mini or chat; unset: '
                        'the source has documents'),
      options={}), values)


def preferences(task: str | None = None, **values: Any) -> ConfigDict:
  """What a preference stage reads: graded responses."""
  return section(dict(
      task=_task(task, 'jsonl:PATH, of prompts with responses and grades, with '
                 'chosen and rejected, or of HH'),
      split=field('train', '', _SPLIT), **_template(),
      options={}), values)


def prompts(task: Task, **values: Any) -> ConfigDict:
  """Where a stage that samples has its prompts from, and how it puts them."""
  return section(dict(
      **_questions(task), split=field('train', '', _SPLIT),
      num_prompts=field(4096, '>= 1', 'prompts taken at most')), values)


def questions(task: Task, **values: Any) -> ConfigDict:
  """The prompts of a test, of config.eval.split; see `test`."""
  return section(_questions(task), values)


def _questions(task: Task) -> dict[str, Any]:
  return dict(
      task=_task(
          task, 'source: mini_reasoning, jsonl:PATH, reasoning_gym:NAME, ...; '
          'or several, ((task, share), ...), mixed'),
      **_template(),
      shots=field(0, '>= 0', 'worked examples before every prompt (few-shot)'),
      examples=optional(str, 'source that the worked examples are from'),
      instruction=optional(str, 'text behind every prompt'),
      seed=field(0, common.SEED, 'seed of sources that draw at random, and of '
                 'the mixture'),
      options={})


###############################################################################
# Language modelling, preferences
###############################################################################


def _micro_batches() -> fields.Field:
  return field(
      1, '>= 1', 'parts of a batch, one after the other, to save memory')


def lm(**values: Any) -> ConfigDict:
  """Next-token training on packed rows."""
  return section(dict(
      batch=field(16, '>= 1', 'rows a step'),
      length=field(256, '>= 2', 'tokens a row, into which texts are packed'),
      micro_batches=_micro_batches(),
      logp_chunk=field(
          64, '>= 1', 'tokens whose logits are held at once, to save memory'),
      prompt_weight=optional(
          float, "weight in the loss of tokens that are not the assistant's; "
          "unset: the source has documents", '>= 0', 0.0)), values)


def distill(**values: Any) -> ConfigDict:
  """A teacher whose next-token logits an lm stage learns from."""
  return section(dict(
      init_from=optional(str, "the teacher, of the student's vocabulary"),
      kind=field('forward', ('forward', 'reverse'), 'KL(teacher || student), '
                 'or the reverse'),
      weight=field(1.0, '>= 0, <= 1', "weight of the divergence; the data's "
                   "cross-entropy has the rest"),
      temperature=field(1.0, '> 0', 'temperature of both distributions'),
      top_k=field(0, '>= 0', "likeliest tokens of the teacher's that are told "
                  "apart; 0: all")), values)


def preference(**values: Any) -> ConfigDict:
  """How a reward model learns from grades, or a policy by DPO."""
  return section(dict(
      loss=field('pairwise', ('pairwise', 'pointwise', 'dpo'), 'Bradley-Terry '
                 'over pairs; safe or unsafe, one by one; or a policy by DPO'),
      scores=field('response', _PARTS, 'what is scored: all of a response, or '
                   'what follows its thinking'),
      margin=field(
          0.0, '>= 0', 'score by which the better response is to lead'),
      batch=field(8, '>= 1', 'rows a step'),
      micro_batches=_micro_batches(),
      length=field(1024, '>= 2', 'tokens a row: all responses to a prompt, or '
                   'to several'),
      balance_length=field(True, '', 'leave prompts out until the better '
                           'response is the longer one in half of them'),
      reference=field(512, '>= 1', 'prompts over whose responses the mean '
                      'score is made 0 in the end'),
      # Of DPO, arXiv 2305.18290: 0.1 to 0.5.
      beta=field(0.1, '> 0', 'of dpo: beta, weight of the KL to the reference'),
      logp_chunk=field(
          128, '>= 1', 'of dpo: tokens whose logits are held at once')), values)


###############################################################################
# Reinforcement learning
###############################################################################


def rl(**values: Any) -> ConfigDict:
  """GRPO as in DeepSeekMath (arXiv 2402.03300), one update a rollout."""
  return section(_rl(), values)


def timed_rl(**values: Any) -> ConfigDict:
  """What a benchmark has of it: its reference stays, and so does beta."""
  declared = _rl()
  for name in ('ref_every_steps', 'kl_target'):
    del declared[name]
  return section(declared, values)


def _rl() -> dict[str, fields.Field]:
  return dict(
      prompts=field(32, '>= 1', 'prompts a step, each answered by a group'),
      group=field(16, '>= 1', 'responses a prompt, G'),
      **_lengths(),
      mini_batches=field(
          1, '>= 1', 'updates from a rollout, each on its own part of it'),
      micro_batch=optional(int, 'responses at a time in an update, to save '
                           'memory; unset: all', '>= 1'),
      epochs=field(1, '>= 1', 'passes over a rollout, mu of DeepSeekMath'),
      temperature=field(
          1.0, '> 0', 'temperature of the policy, in sampling and in the loss'),
      advantage=field('grpo', ('grpo', 'rloo', 'gae'), 'estimator of the '
                      'advantage, A; gae with a section critic'),
      # The papers write std and leave its divisor open. Population keeps a
      # group's advantages at mean square 1 whatever its size.
      std=field(
          'population', ('population', 'sample', 'none'),
          'standard deviation that advantages of a group are divided by; none: '
          'Dr. GRPO'),
      aggregate=field(
          'sequence_mean', ('sequence_mean', 'token_mean', 'constant'),
          'mean of the loss by response (GRPO), by token (DAPO), or over a '
          'constant (Dr. GRPO)'),
      clip_low=field(
          0.2, '> 0', 'epsilon: the ratio is clipped below 1 - clip_low'),
      clip_high=field(
          0.2, '> 0', 'epsilon: the ratio is clipped above 1 + clip_high'),
      dual_clip=optional(float, 'largest ratio where the advantage is negative '
                         '(arXiv 1912.09729); unset: any', '> 1'),
      kl=field('k3', ('none', 'k1', 'k2', 'k3'), 'estimator of the KL to the '
               'reference'),
      kl_in=field('loss', ('loss', 'reward'), 'where the KL is: in the loss '
                  '(GRPO) or in the reward (PPO)'),
      beta=field(0.001, '>= 0', 'beta, weight of the KL'),
      measure_kl=field(False, '', 'measure the KL also where beta is 0, which '
                       'keeps a reference'),
      # arXiv 1909.08593, 2.2.
      kl_target=optional(float, 'KL in nats a response that beta adapts to; '
                         'unset: beta is constant', '> 0'),
      ref_every_steps=field(0, '>= 0', 'steps after which the policy becomes '
                            'the reference; 0: never'),
      # DAPO, arXiv 2503.14476, eq. 11.
      sampling_rounds=field(
          0, '>= 0', 'dynamic sampling (DAPO): batches of prompts drawn at '
          'most to replace groups of equal rewards; 0: they stay'),
      logp_chunk=field(
          128, '>= 1', 'tokens whose logits are held at once, to save memory'))


def sampling(**values: Any) -> ConfigDict:
  """What a stage that only samples has in place of `rl`."""
  return section(dict(
      prompts=field(32, '>= 1', 'prompts a step, each answered by a group'),
      group=field(8, '>= 1', 'responses a prompt'),
      temperature=field(1.0, '> 0', 'sampling temperature'),
      **common.truncation(), **_lengths()), values)


def lengths(**values: Any) -> ConfigDict:
  """What a stage that measures has of it; config.eval says how it samples."""
  return section(_lengths(), values)


def _lengths() -> dict[str, fields.Field]:
  return dict(
      prompt_tokens=field(
          64, '>= 1', 'longest prompt; longer ones are left out and counted'),
      response_tokens=field(128, '>= 1', 'longest response; it is cut there'),
      sample_chunk=field(64, '>= 1', 'response tokens that the KV cache begins '
                         'with; it doubles'))


def critic(**values: Any) -> ConfigDict:
  """GAE (arXiv 1506.02438) and the critic that it takes values from."""
  return section(dict(
      init_from=optional(str, "a reward model to begin with; unset: the "
                         "policy's layers under a new head"),
      gamma=field(1.0, '>= 0, <= 1', 'gamma, discount of later rewards'),
      # 0.95 was far worse in the paper's comparison ([v2] A.3).
      lam=field(1.0, '>= 0, <= 1', 'lambda of GAE'),
      whiten=field(True, '', 'give advantages mean 0 and variance 1'),
      value_clip=optional(float, 'how far a value may move in an update; '
                          'unset: as far as it will', '> 0', 0.2),
      lora=common.lora(), optim=common.optim(lr=1e-3, warmup_steps=3)), values)


###############################################################################
# Rewards
###############################################################################


def rewards(weights: dict[str, float] | None = None,
            tasks: dict[str, dict[str, float]] | None = None,
            models: dict[str, ConfigDict] | None = None, **values: Any
           ) -> ConfigDict:
  """What a response is rewarded for.

  Args:
    weights: of parts, or of `models` by their name, where they are others.
    tasks: {task: {part: weight}} where those of a task are others.
    models: reward models (`reward_model`) by name.
    **values: of the other fields.
  """
  weigh = lambda part, weight: field(
      weight, '', _WEIGHTS.get(part) or f'the reward model {part}')
  parts = dict(accuracy=1.0, format=1.0) | (weights or {})
  return section(dict(
      weights={part: weigh(part, parts.get(part, 0.0))
               for part in {**_WEIGHTS, **parts}},
      tasks={task: {part: weigh(part, weight) for part, weight in own.items()}
             for task, own in (tasks or {}).items()},
      models=models or {},
      functions={},  # {name: 'FILE.py:FUNCTION'}, rewards/functions.py
      judge=judge(),
      # DAPO: the penalty's stretch below rl.response_tokens.
      overlong_cache_tokens=optional(
          int, 'tokens below response_tokens from which the overlong penalty '
          'rises; unset: a fifth of them', '>= 1'),
      workers=field(2, '>= 1', 'processes that verify answers'),
      timeout_seconds=field(5.0, '> 0', 'time to verify an answer'),
      languages=field(('en', 'zh'), '', 'languages told apart, by ISO 639-1 '
                      'code; (): none'),
      language=optional(
          str, "language that the thinking is to be in; unset: the prompt's"),
      form=field('answer', text_rules.FORMS, 'what the format reward asks '
                 'for behind the thinking: an <answer> block, or a summary'),
      answer=field(
          'tags', answers.ANSWERS, 'where the answer stands in a response')),
                 values)


_WEIGHTS = {  # a part of weight 0 is left out; accuracy and format are measured
    'accuracy': 'the answer is right, 0 or 1',
    'format': 'the form is kept to, 0 or 1',
    'language': 'share of the thinking in its language',
    'mixed': 'languages are mixed, 0 or 1; a weight below 0',
    'overlong': 'penalty near the limit of tokens, -1 to 0 (DAPO)',
    'repetition': 'penalty of 4-grams said before, -1 to 0',
}


def reward_model(**values: Any) -> ConfigDict:
  """A model of scores, one of rewards.models."""
  return section(dict(
      init_from=optional(str, 'workdir of a preference stage, or the folder of '
                         'a released reward model'),
      scores=optional(
          str, 'what is scored; unset: what it was trained to score', _PARTS),
      template=optional(str, 'how a prompt is put; unset: as in its training'),
      batch=field(64, '>= 1', 'responses at a time')), values)


def judge(**values: Any) -> ConfigDict:
  """Who is asked for a verdict: a model here, or one served elsewhere."""
  return section(dict(
      init_from=optional(str, 'a model that judges, named as config.init_from; '
                         'unset, as url: no judge'),
      url=optional(
          str, 'or an OpenAI-compatible endpoint that does: http://HOST/v1'),
      model=optional(str, "the endpoint's name of the model"),
      key_variable=optional(
          str, "environment variable with the endpoint's key"),
      template=field(
          'chat', '', 'how a model (init_from) is asked: mini, chat, ...'),
      prompt=optional(str, "text with '{task}', where question and answers "
                      "stand; unset: that of data/verdicts.py"),
      prompt_tokens=field(
          512, '>= 1', 'longest question to a model (init_from)'),
      response_tokens=field(256, '>= 1', 'longest verdict'),
      temperature=field(
          0.0, '>= 0', 'sampling temperature of verdicts; 0: greedy'),
      batch=field(
          32, '>= 1', 'questions at a time; of an endpoint, requests at once'),
      retries=field(2, '>= 0', 'further attempts at a malformed verdict'),
      timeout_seconds=field(120.0, '> 0', 'time for a request to an endpoint')),
                 values)


def keep(**values: Any) -> ConfigDict:
  """What rejection sampling keeps; see rewards/filters.py."""
  return section(dict(
      min_accuracy=field(1.0, '>= 0', 'least accuracy that is kept'),
      format=field(True, '', 'keep only what has the form'),
      max_repetition=optional(
          float, 'largest share of repeated 4-grams; unset: any', '>= 0', 0.5),
      max_paragraph=optional(int, 'characters of the longest paragraph at '
                             'most; unset: any', '>= 1'),
      code=field(False, '', 'keep code blocks'),
      reflection=field(False, '', 'keep only what looks back on itself: '
                       '"wait", "let me check"'),
      per_prompt=optional(
          int, 'responses kept of a prompt at most; unset: all', '>= 1'),
      shard_rows=field(10_000, '>= 1', 'lines of each kept-*.jsonl')), values)


def labels(value: bool) -> fields.Field:
  """Of a stage that ranks responses, in the place of `keep`."""
  return field(value, '', 'whether grades are labels, each by itself: equal '
               'ones of a prompt are then kept')


###############################################################################
# Collections, tests, benchmarks
###############################################################################


def part(task: str, rows: int | None = None, order: str = 'random',
         **options: Any) -> ConfigDict:
  """A part of what is collected: answers, of files or of another source."""
  return section(dict(
      task=field(task, '', 'source of prompts with responses: jsonl:PATH, '
                 'mini_general, ...'),
      rows=optional(int, 'answers that are taken at most; unset: all', '>= 1'),
      order=field('random', ('random', 'curated'), 'which come first; curated: '
                  'various and reflecting ones'),
      options={}), dict(rows=rows, order=order, options=options))


def test(data: ConfigDict, problems: int, **changed: Any) -> ConfigDict:
  """One of several tests of a policy; its rewards go before the stage's."""
  own = rewards(**changed)
  for name in set(own) - set(changed):
    del own[name]
  for part in set(own.get('weights', ())) - set(changed.get('weights', ())):
    del own.weights[part]
  return ConfigDict(dict(
      data=data, problems=field(problems, '>= 1', 'prompts that are asked'),
      rewards=own))


def bench(**values: Any) -> ConfigDict:
  """What is timed."""
  return section(dict(
      steps=field(7, '>= 1', 'steps that are timed'),
      warmup=field(2, '>= 1', 'first steps that are left out of the medians'),
      matmul=field(2048, '>= 1', 'size of the square product: the yardstick'),
      profile=optional(str, 'directory for the trace of one more step; unset: '
                       'none')), values)
