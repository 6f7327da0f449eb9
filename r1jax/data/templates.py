"""Prompt templates: a question goes in, the text a model continues comes out.

A template ends where the response begins, without a space: the response's
first token carries it. Besides those here there is CHAT, the one that comes
with a model that converses (chat.py).
"""

from collections.abc import Callable, Sequence

from r1jax import errors
from r1jax.data import chat
from r1jax.data.vocabs import base


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
CHAT = 'chat'

# (prompt, answer) -> the ids of both, the answer's with the end token.
Encode = Callable[[chat.Prompt, str], tuple[list[int], list[int]]]


def apply(name: str, prompt: str) -> str:
  """Returns `prompt` in the template `name`; ConfigError if there is none."""
  errors.check_choice('data.template', name, TEMPLATES)
  return TEMPLATES[name](prompt)


def prompt_function(name: str, vocab: base.Vocab, system: str | None = None,
          examples: Sequence[tuple[str, str]] = (),
          instruction: str | None = None) -> Callable[[str], str]:
  """Returns the function that puts a question into a template.

  Args:
    name: a key of TEMPLATES, or CHAT for the vocabulary's own.
    vocab: has the chat template.
    system: the system message before the question, which only CHAT has.
    examples: questions with their answers that come before it (few-shot), in
      a chat as earlier turns, else each in the template and on its own line.
    instruction: stands behind the question, on its own line.

  Raises:
    ConfigError: there is no such template, or it takes no such message.
  """
  errors.check_choice('data.template', name, (*TEMPLATES, CHAT))
  asked = lambda question: (
      f'{question}\n{instruction}' if instruction else question)
  if name == CHAT:
    turns = [{'role': role, 'content': text} for pair in examples
             for role, text in zip(('user', 'assistant'), pair)]
    filled = lambda question: chat.prompt(
        vocab, [*turns, {'role': 'user', 'content': asked(question)}], system)
    filled('?')  # what is wrong with a template shows before the data is read
    return filled
  if system is not None:
    raise errors.expected(
        'data.system', f'None, for config.data.template is {name!r}, not '
        f'{CHAT!r}', system)
  before = ''.join(f'{TEMPLATES[name](question)} {answer}\n'
                   for question, answer in examples)
  return lambda question: before + TEMPLATES[name](asked(question))


def pair_encoder(name: str, vocab: base.Vocab,
            system: str | None = None) -> Encode:
  """Returns how a prompt and its answer become tokens: as they are sampled.

  Args: as `frame`. Raises ConfigError as it does, and later for messages in a
  template that frames a question.
  """
  fill = prompt_function(name, vocab, system)
  begin = [] if vocab.bos_id is None else [vocab.bos_id]

  def plain(prompt: chat.Prompt, answer: str):
    if not isinstance(prompt, str):
      raise errors.expected('data.template', f'{CHAT!r}, for the prompts are '
                             'conversations', name)
    # The first token of what is said carries the space.
    said = chat.following(vocab, ' ' + answer.strip())
    return begin + vocab.encode(fill(prompt)), said + [vocab.eos_id]

  def conversation(prompt: chat.Prompt, answer: str):
    return chat.answer_tokens(vocab, chat.messages_of(prompt, system), answer)

  return conversation if name == CHAT else plain
