"""Hugging Face tokenizers: a tokenizer.json and the files beside it."""

from collections.abc import Iterable
import itertools
from typing import Any

from absl import logging

from r1jax import errors
from r1jax.data import ragged
from r1jax.data.vocabs import base
from r1jax.data.vocabs import settings

NAME = 'tokenizer.json'

_Flags = dict[str, dict[str, Any]]


def load(path: str, eos: str | None = None) -> 'HuggingFaceVocab':
  """Reads a tokenizer.json, or the folder that holds it. See load_vocab."""
  file = base.existing(path, NAME)
  return HuggingFaceVocab(
      str(file), file.read_bytes(), base.read_files(file.parent), eos)


class HuggingFaceVocab(base.Vocab):
  """A tokenizer of the library `tokenizers`. See Vocab.

  Special tokens written out in a text become their ids, also those that only
  the settings beside the file name, with the flags that they give, as in
  transformers, and `eos_id` in any case. The BOS token is the one that the
  file's post-processor puts before a text, as in transformers 5, which leaves
  `add_bos_token` unread (some classes of transformers 4 follow it); what it
  puts behind a text is left out, as truncation and padding are. Whether a text
  gets a space before it is the file's, too. Where `add_bos_token` or
  `add_prefix_space` say otherwise, a warning names both files.

  Some classes of transformers 5 (Qwen2Tokenizer, LlamaTokenizer, ...) take only
  the pieces, merges and post-processor from the file and have rules of their
  own: those of Qwen 2's files, but not of Llama 2's, where a text begins with a
  space. Here the file goes first; a saved one names a class that reads it so.
  """

  def __init__(self, path: str, model: bytes, files: base.Files,
               eos: str | None = None):
    """Builds it.

    Args:
      path: where it comes from, for errors.
      model: the content of a tokenizer.json.
      files: the settings files beside it.
      eos: the token that ends a sequence, where the files name none or a wrong
        one.
    """
    import tokenizers  # pylint: disable=g-import-not-at-top
    try:
      self._model = tokenizers.Tokenizer.from_buffer(model)
    except ValueError as e:
      raise errors.ConfigError(
          'vocab.path', 'expected the JSON of a Hugging Face tokenizer in '
          f'{path} ({e}); for a SentencePiece model set config.vocab.kind to '
          "'sentencepiece'") from e
    self._model.no_truncation()
    self._model.no_padding()
    self._model.encode_special_tokens = bool(
        files.tokenizer.get('split_special_tokens'))
    if getattr(self._model.model, 'dropout', None):
      raise errors.ConfigError(
          'vocab.path', f'expected no model.dropout in {path}, received '
          f'{self._model.model.dropout}, with which ids are random; set it to '
          'null')
    absent = self._add_special(
        *files.special(), {entry['content']: entry for _, entry in
                           files.entries()})
    if absent:
      logging.warning(
          '%s: it lacks special tokens that the settings beside it name, which '
          'are words in a text: %s', path, ', '.join(map(repr, absent)))
    ids = self._model.get_vocab().values()
    if not ids:
      raise errors.ConfigError('vocab.path', f'{path} holds no token')
    super().__init__(path, max(ids) + 1, files, eos)
    self._add_special({self.token(i): {} for i in (self.bos_id, self.eos_id)
                       if i is not None and self.token(i) is not None}, {}, {})
    self._settle('add_bos_token', self.bos_id is not None)
    self._settle('add_prefix_space', self._prefixes())

  def encode(self, text: str) -> list[int]:
    return self._model.encode(text, add_special_tokens=False).ids

  def encode_all(self, texts: list[str]) -> ragged.Ragged:
    return ragged.joined(
        encoding.ids for encoding in self._model.encode_batch_fast(
            texts, add_special_tokens=False))

  def decode(self, ids: Iterable[int]) -> str:
    return self._model.decode([int(i) for i in ids if i < self.size])

  def token(self, token_id: int) -> str | None:
    return self._model.id_to_token(token_id)

  def _id(self, token: str) -> int | None:
    return self._model.token_to_id(token)

  def _rules(self) -> Any:
    return self._model.to_str(), self._model.encode_special_tokens

  def _add_special(self, named: _Flags, others: _Flags, listed: _Flags
                   ) -> list[str]:
    """Adds special tokens to the tokenizer, as transformers does.

    The flags of added_tokens_decoder go first, then those of the file. What was
    special remains so; what has a name becomes so.

    Args:
      named: {token: its flags} of those that have a name.
      others: other special ones.
      listed: those of added_tokens_decoder.

    Returns:
      Those that are no tokens of this tokenizer; only `listed` may be new.
    """
    import tokenizers  # pylint: disable=g-import-not-at-top
    known = {token.content: token.__getstate__() for token in
             self._model.get_added_tokens_decoder().values()}
    new, absent = [], []
    for token in dict.fromkeys([*listed, *named, *others]):
      if token not in listed and self._id(token) is None:
        absent.append(token)
        continue
      flags = listed.get(token, {})
      if len(flags) < 2:  # of added_tokens.json
        flags = known.get(token) or named.get(token) or others.get(token, {})
      special = (token in named or known.get(token, {}).get('special')
                 or flags.get('special', token in others))
      flags = {flag: flags[flag] for flag in settings.FLAGS
               if flags.get(flag) is not None}
      added = tokenizers.AddedToken(token, **flags | {'special': special})
      if added.__getstate__() != known.get(token):
        new.append(added)
    self._model.add_tokens(new)
    return absent

  def _beginning(self) -> int | None:
    probe = self._model.encode(self.token(self.eos_id) or 'a')
    before = list(itertools.takewhile(
        lambda i: probe.sequence_ids[i] is None, range(len(probe.ids))))
    if len(before) > 1:
      raise errors.ConfigError(
          'vocab.path', f'{self.path} puts {len(before)} tokens before a text '
          f'({" ".join(probe.tokens[i] for i in before)}, by its '
          'post_processor), expected one or none')
    return probe.ids[0] if before else None

  def _prefixes(self) -> bool:
    """Whether a text gets a space before it."""
    text, model = 'a', self._model
    if model.normalizer is not None:
      text = model.normalizer.normalize_str(text)
    if model.pre_tokenizer is not None:
      text = ''.join(x for x, _ in model.pre_tokenizer.pre_tokenize_str(text))
    return text[:1] in ('Ġ', '▁', ' ')

  def _model_files(self) -> dict[str, bytes]:
    return {NAME: self._model.to_str(pretty=True).encode()}
