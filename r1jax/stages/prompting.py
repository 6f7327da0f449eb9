"""How a model is asked: its vocabulary, and the template of its training.

A stage's workdir records both; a published model has a chat template of its
own, or none, and then a text is continued as it stands.
"""

from collections.abc import Sequence
from typing import NamedTuple

from r1jax import errors
from r1jax.data import templates
from r1jax.data import vocabs
from r1jax.models import packaged
from r1jax.stages import model_source


class Prompting(NamedTuple):
  """What turns a question into a prompt. See templates.prompt_function."""
  vocab: vocabs.Vocab  # its eos_ids end a response
  template: str
  system: str | None = None
  instruction: str | None = None

  def text(self, question: str, history: Sequence[tuple[str, str]] = ()) -> str:
    """The text that a response to `question` continues.

    Args:
      question: what is asked.
      history: earlier questions with their answers, without their thinking.

    Raises:
      ConfigError: the template refuses them, or has no system message.
    """
    history = [(templates.instructed(earlier, self.instruction), answer)
               for earlier, answer in history]  # as they were asked
    return templates.prompt_function(
        self.template, self.vocab, self.system, history,
        self.instruction)(question)

  def checked(self, field: str) -> 'Prompting':
    """This, if its template is there and takes a question.

    Raises:
      ConfigError: of `field`, which has named it.
    """
    try:
      self.text('?')
    except errors.ConfigError as error:  # of config.data, which is not there
      raise errors.ConfigError(field, error.message) from error
    return self

  def tokens(self, text: str) -> list[int]:
    """The ids of a prompt. No BOS is put before what a chat template wrote."""
    begin = self.template != templates.CHAT and self.vocab.bos_id is not None
    return [self.vocab.bos_id] * begin + self.vocab.encode(text)


def of(source: model_source.ModelSource, pieces: int) -> Prompting:
  """How `source` was asked in its training.

  Args:
    source: a language model.
    pieces: the rows of its embedding.

  Raises:
    ConfigError: it has no vocabulary, or its template is not there.
  """
  vocab = source.vocabulary(pieces)
  return Prompting(vocab, *_asked(source, vocab)).checked(source.field)


def _asked(source: model_source.ModelSource, vocab: vocabs.Vocab
           ) -> tuple[str, str | None, str | None]:
  """(template, system message, instruction) of a model's training.

  A stage that learned from documents has none: then as the model that it began
  from.
  """
  if source.kind == 'stage':
    data = source.stage_config().get('data') or {}
    asked = tuple(data.get(name) for name in (
        'template', 'system', 'instruction'))
    if not all(value is None or isinstance(value, str) for value in asked):
      raise errors.expected(source.field, 'texts as data.template, data.system '
                            f'and data.instruction in {source.path}', asked)
    if asked[0] is not None:
      return asked
    parent = source.parent()
    if parent is not None:
      return _asked(parent, vocab)
  elif source.path in packaged.SHIPPED:
    return 'mini', None, None
  elif vocab.chat_template is not None:
    return templates.CHAT, None, None
  return 'plain', None, None
