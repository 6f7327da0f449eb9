"""Tasks: a source's prompts, documents or conversations, tokenised.

A task is a source (sources.py), a data set of TFDS ('tfds:NAME') or a mixture,
a list of (task, rate), which seqio mixes (seqio_tasks.py). It is read once, in
order, into arrays; batches.py shuffles them, as a function of the step. What is
tokenised of files is kept (kept.py).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
import pickle
from typing import Any

import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import chat
from r1jax.data import code_tasks
from r1jax.data import json_lines
from r1jax.data import kept
from r1jax.data import pieces
from r1jax.data import ragged
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import thinking
from r1jax.data import vocabs

_Tasks = str | Sequence[tuple[str, float]]

_TFDS = 'tfds'
_SOURCES = {'inputs': {**sources.PROMPTS, _TFDS: None},
            'targets': sources.DOCUMENTS,
            'messages': sources.CONVERSATIONS}


def prompt_set(
    task: _Tasks, vocab: vocabs.Vocab, prompt_tokens: int, *,
    split: str = 'train', template: str = 'r1_zero', system: str | None = None,
    examples: Sequence[tuple[str, str]] = (), instruction: str | None = None,
    seed: int = 0, num_prompts: int | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[batches.PromptSet, dict[str, int]]:
  """Returns a task's prompts, and {'prompts': kept, 'too_long': left out}.

  Args:
    task: 'mini_reasoning', 'jsonl:PATH', 'tfds:NAME', 'reasoning_gym:NAME',
      'FILE.py:FUNCTION', or a list of (task, rate), mixed by `seed` until one
      runs out.
    vocab: turns the prompts into tokens.
    prompt_tokens: P; a longer prompt is left out and counted, never cut.
    split: 'train', 'heldout', or a name that the source knows.
    template, system, examples, instruction: see templates.prompt_function.
    seed: of sources that generate, and of the mixing.
    num_prompts: the most to take; None: all.
    options: of the source; of a mixture {'0': options, ...}, by position.

  Raises:
    ConfigError: names the field of config.data that is wrong.
  """
  fill = templates.prompt_function(
      template, vocab, system, examples, instruction)
  rows = _Rows(task, 'inputs', split, seed, num_prompts, options or {})
  found = rows.tokenised(
      lambda: _prompts(rows, vocab, template, fill, prompt_tokens),
      vocab, template, prompt_tokens, system, examples, instruction)
  left_out = int(found['left_out'][0])
  if left_out > rows.left_out:  # they are kept, and no file was read
    code_tasks.warn(left_out, task)
  tokens = ragged.Ragged(found['ids'], found['ids_end'])
  records = ragged.Records(
      ragged.Ragged(found['records'], found['records_end']))
  prompts = batches.PromptSet(
      ragged.Padded(tokens, prompt_tokens, vocab.pad_id),
      tokens.length.astype(np.int32), records,
      [records[first] for first in found['kinds']])
  return prompts, {
      'prompts': len(tokens), 'too_long': int(found['too_long'][0])}


def _prompts(rows: '_Rows', vocab: vocabs.Vocab, template: str,
             fill: templates.Fill, limit: int) -> kept.Arrays:
  """The ids and records of the prompts of at most `limit` tokens.

  'kinds' are the first records of each task and verifier.
  """
  begin = () if template == templates.CHAT else _begin(vocab)
  ids, records = ragged.Builder('i'), ragged.Builder('B')
  kinds, too_long = {}, 0
  for record, (piece,), tokens, _ in rows.encoded(
      vocab, ids, lambda row: [pieces.Piece(
          fill(row.get('shown', row['prompt']), row), begin=begin)]):
    if len(tokens) > limit:
      too_long += 1
      continue
    if thinking.opened(piece.text):
      record = record | {'opened': True}
    kinds.setdefault((record['task'], record['verifier']), len(ids))
    ids.add(tokens)
    records.add(pickle.dumps(record))
  if not ids:
    raise errors.ConfigError(
        'rl.prompt_tokens', f'all {too_long} prompts of {rows.task!r} have '
        f'more than {limit} tokens')
  return {**ids.arrays('ids'), **records.arrays('records'),
          'kinds': np.array([*kinds.values()]),
          'too_long': np.array([too_long]),
          'left_out': np.array([rows.left_out])}


def documents(
    task: _Tasks, vocab: vocabs.Vocab, *, split: str = 'train',
    seed: int = 0, num_documents: int | None = None,
    options: dict[str, Any] | None = None) -> ragged.Ragged:
  """Returns the documents of a task, i32[n] each, ending in EOS.

  Arguments are as of prompt_set; a task is 'mini_corpus' or 'jsonl:PATH', for
  example.
  """
  rows = _Rows(task, 'targets', split, seed, num_documents, options or {})

  begin, end = _begin(vocab), (vocab.eos_id,)

  def made():
    ids = ragged.Builder('i')
    for _, _, tokens, _ in rows.encoded(
        vocab, ids, lambda text: [pieces.Piece(text, begin=begin, end=end)]):
      ids.add(tokens)
    return ids.arrays('ids')

  found = rows.tokenised(made, vocab)
  return ragged.Ragged(found['ids'], found['ids_end'])


def conversations(
    task: _Tasks, vocab: vocabs.Vocab, *, split: str = 'train',
    template: str = templates.CHAT, seed: int = 0, count: int | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[ragged.Ragged, ragged.Ragged]:
  """Returns the tokens of each, i32[n], and 1 on the assistant's, u8[n].

  Arguments are as of prompt_set; a task is 'mini_writing' or 'jsonl:PATH', for
  example. Only a model's own chat template takes more than a question and its
  answer.
  """
  rows = _Rows(task, 'messages', split, seed, count, options or {})
  write = templates.answer_writer(template, vocab)

  def written(messages):
    with errors.at(getattr(messages, 'place', '')):
      if template == templates.CHAT:
        return chat.conversation_pieces(vocab, messages)
      question, answer = chat.question_and_answer(messages)
      return write(question, [answer])

  def made():
    ids, sizes = ragged.Builder('i'), ragged.Builder('i')
    for _, _, tokens, size in rows.encoded(vocab, ids, written):
      ids.add(tokens)
      sizes.add(size)
    # A row has its pieces in pairs: what is asked, and what is said.
    size = sizes.built().values
    said = np.repeat(np.resize(np.uint8([0, 1]), len(size)), size)
    return {**ids.arrays('ids'), 'said': said}

  found = rows.tokenised(made, vocab, template)
  tokens, said = (ragged.Ragged(found[name], found['ids_end'])
                  for name in ('ids', 'said'))
  return tokens, said


def _begin(vocab: vocabs.Vocab) -> tuple[int, ...]:
  """What comes before a text that no chat template wrote."""
  return () if vocab.bos_id is None else (vocab.bos_id,)


class _Rows:
  """The rows of a task, read in order: all that its tokens are made of."""

  def __init__(self, task: _Tasks, column: str, split: str, seed: int,
               count: int | None, options: dict[str, Any]):
    """Checks the arguments, which are as of prompt_set; reads nothing.

    `column` is what the rows are, a key of _SOURCES.
    """
    self.task, self._count = task, count
    self.left_out = 0  # problems of what has been read
    self._asked = column, task, split, seed, count, options
    self._parts = [
        (name, rate, *sources.split_task(name, _SOURCES[column]), settings)
        for name, rate, settings in sources.parts(task, options)]
    for _, _, kind, _, settings in self._parts:
      if kind != _TFDS:
        sources.check_options(_SOURCES[column][kind], settings)

  @property
  def _by_seqio(self) -> bool:
    return len(self._parts) > 1 or self._parts[0][2] == _TFDS

  def tokenised(self, make: Callable[[], kept.Arrays], vocab: vocabs.Vocab,
                template: str | None = None, *more: Any) -> kept.Arrays:
    """What `make` makes of the rows, from an earlier time if it was kept.

    Args:
      make: () -> arrays.
      vocab, template, more: all else that they depend on.
    """
    _, _, split, *_ = self._asked
    files = []
    if all(kind in sources.FILES for _, _, kind, _, _ in self._parts):
      for _, _, _, argument, _ in self._parts:
        files += json_lines.paths(argument, split)
    return kept.tokens(make, files, vocab, template, *self._asked, *more)

  def encoded(self, vocab: vocabs.Vocab, made: Sized,
              write: Callable[[Any], Sequence[pieces.Piece]]
              ) -> Iterator[
                  tuple[Any, Sequence[pieces.Piece], np.ndarray, list[int]]]:
    """Yields each row with its pieces, ids and sizes, as pieces.encoded.

    It ends once `made` has as many as are wanted. The other rows of a file are
    read, too: a wrong one is refused.
    """
    rows = iter(self._read())
    yield from pieces.encoded(vocab, rows, write, made, self._count)
    if not self._by_seqio:
      for _ in rows:
        pass

  def _read(self) -> Iterable[Any]:
    """All rows, one by one; ConfigError where there is none."""
    column, _, split, seed, _, _ = self._asked
    if not self._by_seqio:
      (name, _, kind, argument, options), = self._parts
      return self._of(name, kind, argument, options)
    from r1jax.data import seqio_tasks  # imported here: it brings TensorFlow
    return seqio_tasks.read([
        seqio_tasks.Part(name, rate, None if kind == _TFDS else list(
            self._of(name, kind, argument, options)), options)
        for name, rate, kind, argument, options in self._parts],
                            column, split, seed)

  def _of(self, name: str, kind: str, argument: str, options: dict[str, Any]
          ) -> Iterator[Any]:
    """The rows of one task, which is none of TFDS."""
    column, _, split, seed, count, _ = self._asked
    found = _SOURCES[column][kind](argument, split, seed, count, **options)
    if isinstance(found, code_tasks.Records):
      self.left_out += found.left_out
    number = -1
    for number, row in enumerate(found):
      yield row
    if number < 0:
      raise errors.ConfigError(
          'data.task', f'{name!r} is empty, in split {split!r}')
