"""Sections of rewards: rules, reward models, a judge, programs run on tests.

As in sections.py, one function per section, which takes other values for its
fields by name.
"""

from typing import Any

from experiments import common
from r1jax import fields
from r1jax.rewards import answers
from r1jax.rewards import cutting
from r1jax.rewards import lengths
from r1jax.rewards import process
from r1jax.rewards import text_rules

ConfigDict, section = common.ConfigDict, common.section
field, optional = fields.field, fields.optional
TEMPERATURE, SECONDS = common.TEMPERATURE, common.SECONDS
_PARTS = ('response', 'summary')


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
      code=code(),
      # DAPO: the penalty's ramp below rl.response_tokens.
      overlong_cache_tokens=optional(
          int, 'the overlong penalty (DAPO) grows over this many tokens before '
          'response_tokens; unset: a fifth of response_tokens', '>= 1'),
      length_rule=field('kimi', lengths.RULES, 'what the length reward '
                        'favours: short responses (Kimi k1.5), or a budget '
                        '(L1)'),
      target_tokens=optional(
          int, "budget of the length rules l1_exact and l1_max; unset: each "
          "row's own column target_tokens", '>= 1'),
      length_slope=field(
          0.0003, '> 0', 'slope of the length rule l1_max per token'),
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


_WEIGHTS = {  # with weight 0 the last three are not computed; others are logged
    'accuracy': 'the answer is correct, 0 or 1',
    'format': 'the response follows rewards.form, 0 or 1',
    'language': 'share of the thinking in the required language',
    'mixed': 'languages are mixed, 0 or 1; give it a weight below 0',
    'overlong': 'penalty near the limit of tokens, -1 to 0 (DAPO)',
    'repetition': 'penalty of repeated 4-grams, -1 to 0',
    'length_rule': 'the length reward of rewards.length_rule',
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
      combine=optional(str, 'how the scores of steps become one; unset: min',
                       tuple(process.COMBINATIONS)),
      batch=field(64, '>= 1', 'responses per batch')), values)


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
          32, '>= 1', 'prompts per batch; with url, concurrent requests'),
      retries=field(2, '>= 0', 'further attempts after a malformed verdict'),
      timeout_seconds=field(
          120.0, SECONDS, 'time limit of a request to url')), values)


def code(**values: Any) -> ConfigDict:
  """Limits of a program that is run on tests, in a sandbox."""
  return section(dict(
      seconds=field(5.0, SECONDS, "wall-clock time of a test, or of a suite's "
                    'test code; a problem may have its own'),
      total_seconds=field(
          30.0, SECONDS, 'wall-clock time of all tests of a program'),
      memory_mib=field(512, '>= 64', 'address space, the interpreter included; '
                       'a problem may have its own'),
      output_kib=field(
          256, '>= 1', 'the most that a test may print, write or return'),
      tests=optional(
          int, 'number of tests that are run, the first; unset: all', '>= 1'),
      unsafe_subprocess=field(
          False, '', 'run programs without a sandbox where bubblewrap cannot '
          'make one: they can then read and change what this user can')),
                 values)
