"""Prompt templates: a question goes in, the text a model continues comes out.

A template ends where the response begins, without a space: the response's
first token carries it.
"""

from r1jax.data import names


def r1_zero(prompt: str) -> str:
  """DeepSeek-R1-Zero's template, to the letter (arXiv 2501.12948, table 1).

  The full stop after the question is the paper's, also where the question
  ends in a mark of its own.
  """
  return (
      'A conversation between User and Assistant. The user asks a question, '
      'and the Assistant solves it. The assistant first thinks about the '
      'reasoning process in the mind and then provides the user with the '
      'answer. The reasoning process and answer are enclosed within <think> '
      '</think> and <answer> </answer> tags, respectively, i.e., <think> '
      'reasoning process here </think> <answer> answer here </answer>. '
      f'User: {prompt}. Assistant:')


def mini(prompt: str) -> str:
  """A dialogue's bare frame, for a model that knows the format already."""
  return f'User: {prompt}\nAssistant:'


def plain(prompt: str) -> str:
  """The question alone."""
  return prompt


TEMPLATES = {f.__name__: f for f in (r1_zero, mini, plain)}


def apply(name: str, prompt: str) -> str:
  """Returns `prompt` in the template `name`; ConfigError if there is none."""
  names.check('config.data.template', name, TEMPLATES)
  return TEMPLATES[name](prompt)
