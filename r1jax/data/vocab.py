"""Vocabularies: text to token ids and back, without TensorFlow.

One small interface (vocab_base.Vocab) over SentencePiece models, Hugging Face
tokenizers and the tokenizer inside a GGUF file. The padding id may equal the
end-of-sequence id, as it does in many released models, so nothing may tell
padding by its id: lengths do.
"""

import importlib.resources

from r1jax import config as config_lib
from r1jax.data import names
from r1jax.data import vocab_base
from r1jax.data import vocab_gguf
from r1jax.data import vocab_huggingface
from r1jax.data import vocab_sentencepiece

Vocab = vocab_base.Vocab

_MINI = 'assets/mini.model'

KINDS = {
    'sentencepiece': vocab_sentencepiece.load,
    'huggingface': vocab_huggingface.load,
    'gguf': vocab_gguf.load,
}


def load(kind: str, path: str, eos: str | None = None) -> Vocab:
  """Reads a vocabulary.

  Args:
    kind: a key of KINDS.
    path: the file or folder, or 'mini' for the SentencePiece model shipped
      with the package.
    eos: the token that ends a sequence, where the files name none or another.

  Raises:
    ConfigError: names the field of config.vocab that is wrong.
  """
  names.check('config.vocab.kind', kind, KINDS)
  if not path:
    raise config_lib.error(
        'vocab.path', "a file or folder, or 'mini' for the vocabulary shipped",
        path)
  if path == 'mini':
    if kind != 'sentencepiece':
      raise config_lib.error(
          'vocab.kind', "'sentencepiece', the kind of config.vocab.path 'mini'",
          kind)
    path = str(importlib.resources.files(__package__).joinpath(_MINI))
  return KINDS[kind](path, eos)
