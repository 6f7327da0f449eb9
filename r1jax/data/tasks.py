"""Tasks of seqio: a source's prompts, documents, conversations, tokenised.

Only this module and tfds_source.py import TensorFlow and seqio. A source
(sources.py, or 'tfds:NAME') becomes a Task of seqio's registry, a list of
(task, rate) a Mixture. Both are read once, unshuffled, into arrays; batches.py
shuffles them, as a function of the step. Prompts have the feature 'inputs',
documents 'targets', which ends in EOS. Gin can configure `tasks.mark_long`,
`seqio.TfdsDataSource` and `seqio.SentencePieceVocabulary`.
"""

from collections.abc import Callable, Sequence
import functools
import pickle
import re
from typing import Any

import gin
import numpy as np
import seqio
import tensorflow as tf

from r1jax import errors
from r1jax.data import batches
from r1jax.data import chat
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import tfds_source
from r1jax.data import thinking
from r1jax.data import vocabs

tf.config.set_visible_devices([], 'GPU')  # GPUs are left to JAX

_Tasks = str | Sequence[tuple[str, float]]
_Step = Callable[[tf.data.Dataset], tf.data.Dataset]
_Source = tuple[seqio.DataSource, Sequence[_Step]]

_SentencePiece = gin.external_configurable(
    seqio.SentencePieceVocabulary, module='seqio')


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
  frame = functools.partial(
      tfds_source.add_text, feature='inputs', inputs=['inputs', 'record'],
      function=lambda prompt, record: fill(
          prompt.decode(), pickle.loads(record)))
  begin = template != templates.CHAT
  dataset = _dataset(
      task, 'inputs', {'inputs': _feature(vocab)},
      [frame, _mark_opened, *_tokenized(vocab, 'inputs', begin), mark_long],
      split, seed, num_prompts, options or {}, limit=prompt_tokens)
  tokens, records, too_long = [], [], 0
  for example in dataset.as_numpy_iterator():
    if len(records) == num_prompts:
      break
    if example['problem']:
      raise pickle.loads(example['problem'])
    if example['long']:
      too_long += 1
    else:
      tokens.append(example['inputs'])
      opened = {'opened': True} if example['opened'] else {}
      records.append(pickle.loads(example['record']) | opened)
  if not (records or too_long):
    raise _empty(task, split)
  if not records:
    raise errors.ConfigError(
        'rl.prompt_tokens', f'all {too_long} prompts of {task!r} have '
        f'more than {prompt_tokens} tokens')
  return (batches.prompt_set(tokens, records, prompt_tokens, vocab.pad_id),
          {'prompts': len(records), 'too_long': too_long})


def documents(
    task: _Tasks, vocab: vocabs.Vocab, *, split: str = 'train',
    seed: int = 0, num_documents: int | None = None,
    options: dict[str, Any] | None = None) -> list[np.ndarray]:
  """Returns the documents of a task, i32[n] each, ending in EOS.

  Arguments are as of prompt_set; a task is 'mini_corpus' or 'jsonl:PATH', for
  example.
  """
  dataset = _dataset(
      task, 'targets', {'targets': _feature(vocab, add_eos=True)},
      [*_tokenized(vocab, 'targets'), seqio.preprocessors.append_eos], split,
      seed, num_documents, options or {})
  dataset = dataset.take(-1 if num_documents is None else num_documents)
  return [example['targets'] for example in dataset.as_numpy_iterator()]


def conversations(
    task: _Tasks, vocab: vocabs.Vocab, *, split: str = 'train',
    template: str = templates.CHAT, seed: int = 0, count: int | None = None,
    options: dict[str, Any] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns (tokens i32[n], 1 on the assistant's, i32[n]) of each.

  Arguments are as of prompt_set; a task is 'mini_writing' or 'jsonl:PATH', for
  example. Only a model's own chat template takes more than a question and its
  answer.
  """
  features = {'messages': seqio.Feature(
      seqio.PassThroughVocabulary(0), False, dtype=tf.string, rank=0)}
  dataset = _dataset(task, 'messages', features, [], split, seed, count,
                     options or {})
  encode = templates.pair_encoder(template, vocab)
  pairs = []
  for example in dataset.take(-1 if count is None else count
                             ).as_numpy_iterator():
    messages = pickle.loads(example['messages'])
    with errors.at(getattr(messages, 'place', '')):
      if template == templates.CHAT:
        ids, weights = chat.conversation_tokens(vocab, messages)
      else:
        asked, said = encode(*chat.question_and_answer(messages))
        ids, weights = asked + said, [False] * len(asked) + [True] * len(said)
    pairs.append((np.array(ids, np.int32), np.array(weights, np.int32)))
  return pairs


def seqio_vocabulary(vocab: vocabs.Vocab) -> seqio.Vocabulary:
  """Returns seqio's form of a vocabulary, with the same ids."""
  if vocab.model_file is not None:
    native = _SentencePiece(vocab.model_file)
    if native.eos_id == vocab.eos_id:
      return native
  return Vocabulary(vocab)


class Vocabulary(seqio.Vocabulary):
  """Any of our vocabularies as one of seqio's."""

  def __init__(self, vocab: vocabs.Vocab):
    super().__init__()
    self._vocab = vocab

  bos_id = property(lambda self: self._vocab.bos_id)
  eos_id = property(lambda self: self._vocab.eos_id)
  pad_id = property(lambda self: self._vocab.pad_id)
  unk_id = property(lambda self: None)
  _base_vocab_size = property(lambda self: self._vocab.size)
  _encode = property(lambda self: self._vocab.encode)
  _decode = property(lambda self: self._vocab.decode)

  def _encode_tf(self, s):
    def encode(text):  # bytes in a graph, an array of them outside
      text = np.asarray(text, object).item().decode()
      return np.array(self._vocab.encode(text), np.int32)
    return tf.ensure_shape(tf.numpy_function(encode, [s], tf.int32), [None])

  def _decode_tf(self, ids):
    decode = np.vectorize(self._vocab.decode, signature='(n)->()', otypes='O')
    return tf.numpy_function(decode, [ids], tf.string)


@gin.configurable(module='tasks')
def mark_long(dataset: tf.data.Dataset, sequence_length: dict[str, int],
              max_tokens: int | None = None) -> tf.data.Dataset:
  """Adds 'long', whether 'inputs' is too long; the reader drops those."""
  limit = min(sequence_length['inputs'], max_tokens or np.inf)
  return dataset.map(lambda x: {**x, 'long': tf.size(x['inputs']) > limit})


def _mark_opened(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Adds 'opened', whether the prompt ends by opening the thinking."""
  return dataset.map(lambda x: {**x, 'opened': tf.strings.regex_full_match(
      x['inputs'], thinking.OPENED)})


def _feature(vocab: vocabs.Vocab, add_eos: bool = False) -> seqio.Feature:
  return seqio.Feature(seqio_vocabulary(vocab), add_eos, dtype=tf.int32)


def _tokenized(vocab: vocabs.Vocab, feature: str,
               begin: bool = True) -> list[_Step]:
  """The steps from a text to its tokens, BOS first if `begin`."""
  steps = [functools.partial(
      seqio.preprocessors.tokenize, copy_pretokenized=False)]
  if begin and vocab.bos_id is not None:
    steps.append(lambda dataset: dataset.map(
        lambda x: {**x, feature: tf.concat([[vocab.bos_id], x[feature]], 0)}))
  return steps


def _dataset(
    task: _Tasks, column: str, features: dict[str, seqio.Feature],
    steps: Sequence[_Step], split: str, seed: int, count: int | None,
    options: dict[str, Any], limit: int | None = None) -> tf.data.Dataset:
  """Registers the tasks and their mixture, and reads it once, in order.

  A source gives `column`, from which `steps` make the features.
  """
  mixture = re.sub(r'\W', '_', f'r1jax_{column}_{split}')
  rates = []
  for i, (name, rate, settings) in enumerate(sources.parts(task, options)):
    source, first = _source(name, column, split, seed, count, settings)
    # The position comes first: seqio mixes tasks in the order of their names.
    title = re.sub(r'[^\w.:]', '_', f'{mixture}:{i:03}:{name}')
    seqio.TaskRegistry.remove(title)
    seqio.TaskRegistry.add(
        title, source=source, output_features=features,
        preprocessors=[*first, *steps])
    rates.append((title, rate))
  seqio.MixtureRegistry.remove(mixture)
  return seqio.MixtureRegistry.add(mixture, rates).get_dataset(
      dict.fromkeys(features, limit), split=split, shuffle=False, seed=seed,
      num_epochs=1, trim_output_features=False,
      passthrough_features=('record', 'opened', 'long', 'problem'))


def _source(name: str, column: str, split: str, seed: int, count: int | None,
            options: dict[str, Any]) -> _Source:
  """Returns seqio's source of a task, and the steps that give it `column`."""
  known = {'inputs': {**sources.PROMPTS, 'tfds': tfds_source.prompt_source},
           'targets': sources.DOCUMENTS,
           'messages': sources.CONVERSATIONS}[column]
  kind, argument = sources.split_task(name, known)
  read = known[kind]
  sources.check_options(read, options)
  if kind == 'tfds':
    return read(argument, split, **options)

  # What is read here is refused in one line; within seqio, after its log.
  ready = [read(argument, split, seed, count, **options)]
  if not ready[0]:
    raise _empty(name, split)

  def dataset(split, shuffle_files, seed=None):
    del shuffle_files
    items = ready.pop() if ready else read(
        argument, split, seed, count, **options)
    columns = {column: items}
    if column == 'inputs':
      columns = {column: [r.get('shown', r['prompt']) for r in items],
                 'record': [pickle.dumps(r) for r in items]}  # keeps tuples
    elif column == 'messages':
      columns = {column: [pickle.dumps(m) for m in items]}
    return tf.data.Dataset.from_tensor_slices(columns)

  return seqio.FunctionDataSource(dataset, splits=[split]), ()


def _empty(task: _Tasks, split: str) -> errors.ConfigError:
  return errors.ConfigError(
      'data.task', f'{task!r} is empty, in split {split!r}')
