"""Vocabularies: text to token ids and back, without TensorFlow.

One small interface (base.Vocab) over SentencePiece models, Hugging Face
tokenizers and the tokenizer inside a GGUF file. The padding id may equal the
end-of-sequence id, as it does in many published models, so padding is known by
lengths, never by its id.
"""

import importlib.resources
import os

from r1jax import errors
from r1jax.data.vocabs import base
from r1jax.data.vocabs import gguf
from r1jax.data.vocabs import huggingface
from r1jax.data.vocabs import sentencepiece

Vocab = base.Vocab
KINDS = {
    'sentencepiece': sentencepiece.load,
    'huggingface': huggingface.load,
    'gguf': gguf.load,
}
# What is read of a folder, where it is there.
FILES = (huggingface.NAME, sentencepiece.NAME, *base.SETTINGS)


def load_vocab(kind: str, path: str, eos: str | None = None) -> Vocab:
  """Reads a vocabulary.

  Args:
    kind: a key of KINDS.
    path: the file or folder (`~` is the user's home), or 'mini' for the
      SentencePiece model shipped with the package.
    eos: the token that ends a sequence, where the files name none or a wrong
      one.

  Raises:
    ConfigError: names the field of config.vocab that is wrong.
  """
  errors.check_choice('vocab.kind', kind, KINDS)
  if not path:
    raise errors.expected(
        'vocab.path', "a file or folder, or 'mini' for the packaged vocabulary",
        path)
  if path == 'mini':
    if kind != 'sentencepiece':
      raise errors.expected(
          'vocab.kind', "'sentencepiece', the kind of config.vocab.path 'mini'",
          kind)
    path = str(importlib.resources.files('r1jax.mini').joinpath(
        'assets/mini.model'))
  return KINDS[kind](os.path.expanduser(path), eos)
