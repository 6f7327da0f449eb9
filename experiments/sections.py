"""Sections of single kinds of stage: data, objectives, rewards, tests.

One function per section, which takes other values for its fields by name; see
common.py. Symbols and values are those of DeepSeek-R1 ([v2] arXiv
2501.12948v2) and DeepSeekMath (arXiv 2402.03300) where nothing else is said.
"""

from typing import Any

from experiments import common
from r1jax import fields
from r1jax.rewards import answers
from r1jax.rewards import cutting
from r1jax.rewards import process
from r1jax.rewards import text_rules

ConfigDict, section = common.ConfigDict, common.section
field, optional = fields.field, fields.optional
TEMPERATURE, SECONDS = common.TEMPERATURE, common.SECONDS
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
      separator=field('\n', '', 'stepwise: ends each step; its score is read '
                      'there'),
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
  for name in ('ref_every_steps', 'kl_target', 'process'):
    del declared[name]
  return section(declared, values)


def _rl() -> dict[str, fields.Field]:
  return dict(
      prompts=field(32, '>= 1', 'prompts per step, each with its group'),
      group=field(16, '>= 1', 'responses per prompt, G'),
      **_lengths(),
      mini_batches=field(1, '>= 1', 'parts of a rollout, one update each'),
      micro_batch=optional(int, 'responses at a time in an update, to save '
                           'memory; unset: all', '>= 1'),
      epochs=field(1, '>= 1', 'passes over a rollout, mu of DeepSeekMath'),
      temperature=field(1.0, TEMPERATURE, 'temperature of the policy, in '
                        'sampling and in the loss'),
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
      clip_low=field(
          0.2, '> 0', 'epsilon: the ratio is clipped below 1 - clip_low'),
      clip_high=field(
          0.2, '> 0', 'epsilon: the ratio is clipped above 1 + clip_high'),
      dual_clip=optional(float, 'largest ratio where the advantage is negative '
                         '(arXiv 1912.09729); unset: no bound', '> 1'),
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
      logp_chunk=field(
          128, '>= 1', 'tokens whose logits are held at once, to save memory'))


def sampling(**values: Any) -> ConfigDict:
  """The section `rl` of a stage that only samples."""
  return section(dict(
      prompts=field(32, '>= 1', 'prompts per step, each with its group'),
      group=field(8, '>= 1', 'responses per prompt'),
      temperature=field(1.0, TEMPERATURE, 'sampling temperature'),
      **common.truncation(), **_lengths()), values)


def lengths(**values: Any) -> ConfigDict:
  """The fields of `rl` in a `measure` stage; config.eval has its sampling."""
  return section(_lengths(), values)


def _lengths() -> dict[str, fields.Field]:
  return dict(
      prompt_tokens=field(
          64, '>= 1', 'longest prompt; longer ones are left out and counted'),
      response_tokens=field(128, '>= 1', 'responses are cut at this length'),
      sample_chunk=field(64, '>= 1', 'response tokens that the KV cache holds '
                         'at first; it doubles when full'))


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
# Rewards
###############################################################################


def rewards(weights: dict[str, float] | None = None,
            tasks: dict[str, dict[str, float]] | None = None,
            models: dict[str, ConfigDict] | None = None, **values: Any
           ) -> ConfigDict:
  """What a response is rewarded for.

  Args:
    weights: {part or model: weight}, where not the default.
    tasks: {task: {part: weight}}, for tasks with weights of their own.
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
      # DAPO: the penalty's ramp below rl.response_tokens.
      overlong_cache_tokens=optional(
          int, 'tokens below response_tokens from which the overlong penalty '
          'rises; unset: a fifth of them', '>= 1'),
      workers=field(2, '>= 1', 'processes that verify answers, and as many for '
                    'reward functions'),
      timeout_seconds=field(5.0, SECONDS, 'time limit of a verification or '
                            'reward function call'),
      languages=field(('en', 'zh'), '', 'languages that the rewards '
                      'distinguish, ISO 639-1 codes; (): none'),
      language=optional(
          str, "language required of the thinking; unset: the prompt's"),
      form=field('answer', text_rules.FORMS, 'what the format reward requires '
                 'after the thinking: an <answer> block, or a summary'),
      answer=field(
          'tags', answers.ANSWERS, 'where the answer is found in a response')),
                 values)


_WEIGHTS = {  # at weight 0 the last two are not computed; the others are logged
    'accuracy': 'the answer is right, 0 or 1',
    'format': 'the response has the form, 0 or 1',
    'language': 'share of the thinking in the required language',
    'mixed': 'languages are mixed, 0 or 1; give it a weight below 0',
    'overlong': 'penalty near the limit of tokens, -1 to 0 (DAPO)',
    'repetition': 'penalty of repeated 4-grams, -1 to 0',
}


def reward_model(**values: Any) -> ConfigDict:
  """A reward model, one of rewards.models."""
  return section(dict(
      init_from=optional(str, 'workdir of a preference stage, or the Hugging '
                         'Face folder of a reward model'),
      scores=optional(
          str, 'what is scored; unset: what it was trained to score', _PARTS),
      template=optional(str, 'prompt template; unset: as in its training'),
      cut=optional(str, 'of a process reward model, what ends a step; unset: '
                   'lines', cutting.CUTS),
      combine=optional(str, "the steps' scores as one; unset: min",
                       tuple(process.COMBINATIONS)),
      batch=field(64, '>= 1', 'responses at a time')), values)


def judge(**values: Any) -> ConfigDict:
  """The judge: a model on this mesh, or one behind an endpoint."""
  return section(dict(
      init_from=optional(str, 'a judge, named as in config.init_from; neither '
                         'this nor url: no judge'),
      url=optional(
          str, 'or an OpenAI-compatible endpoint of one: http://HOST/v1'),
      model=optional(str, "the model's name at the endpoint"),
      key_variable=optional(
          str, "environment variable with the endpoint's key"),
      template=field(
          'chat', '', 'prompt template for a model (init_from)'),
      prompt=optional(str, "text of the prompt, with '{task}' for question and "
                      'answers; unset: that of data/verdicts.py'),
      prompt_tokens=field(512, '>= 1', 'longest prompt of a model (init_from)'),
      response_tokens=field(256, '>= 1', 'longest verdict'),
      temperature=field(0.0, common.OR_GREEDY, 'of verdicts; 0: greedy'),
      batch=field(
          32, '>= 1', 'prompts at a time; with url, concurrent requests'),
      retries=field(2, '>= 0', 'further attempts after a malformed verdict'),
      timeout_seconds=field(
          120.0, SECONDS, 'time limit of a request to url')), values)


def keep(**values: Any) -> ConfigDict:
  """What rejection sampling keeps; see rewards/filters.py."""
  return section(dict(
      min_accuracy=field(1.0, '>= 0, <= 1', 'least accuracy that is kept'),
      format=field(True, '', 'keep only responses that have the form'),
      max_repetition=optional(float, 'largest share of repeated 4-grams; '
                              'unset: any', '>= 0, <= 1', 0.5),
      max_paragraph=optional(
          int, 'longest paragraph, in characters; unset: any', '>= 1'),
      code=field(False, '', 'keep responses with code blocks, too'),
      reflection=field(False, '', 'keep only responses that reflect: "wait", '
                       '"let me check"'),
      per_prompt=optional(
          int, 'at most so many responses per prompt; unset: all', '>= 1'),
      shard_rows=field(10_000, '>= 1', 'lines of each kept-*.jsonl')), values)


def labels(value: bool) -> fields.Field:
  """In place of `keep`, in a stage that grades responses."""
  return field(value, '', 'whether grades are absolute labels (for a '
               'point-wise model): prompts of equal grades are kept')


def labelling(**values: Any) -> ConfigDict:
  """How a step_labels stage labels steps (Math-Shepherd, arXiv 2312.08935)."""
  return section(dict(
      cut=field('lines', cutting.CUTS, 'what ends a step'),
      completions=field(
          8, '>= 1', 'sampled after each step, N of Math-Shepherd'),
      batch=field(64, '>= 1', 'steps at a time')), values)


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


def test(data: ConfigDict, problems: int, **changed: Any) -> ConfigDict:
  """One of several tests; its own rewards override those of the stage."""
  own = rewards(**changed)
  for name in set(own) - set(changed):
    del own[name]
  for part in set(own.get('weights', ())) - set(changed.get('weights', ())):
    del own.weights[part]
  return ConfigDict(dict(
      data=data, problems=field(problems, '>= 1', 'prompts of the test'),
      rewards=own))


def bench(**values: Any) -> ConfigDict:
  """What is timed."""
  return section(dict(
      steps=field(7, '>= 1', 'steps in total'),
      warmup=field(2, '>= 1', 'first steps, left out of the medians'),
      matmul=field(2048, '>= 1', 'size of the square product: the yardstick'),
      profile=optional(str, 'directory for the trace of one more step; unset: '
                       'none')), values)
