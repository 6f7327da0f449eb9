"""Converts other tokenizers to Hugging Face's tokenizer.json.

A tokenizer.json is data: how to normalise a text, how to cut it into words,
which pieces a word is merged from and how pieces become text again. These
functions take the tables of a byte-level BPE or a SentencePiece model and
return the content of that file.
"""

from collections.abc import Iterable, Mapping, Sequence
import itertools
import json
from typing import Any, NamedTuple

_SPACE = '▁'  # how SentencePiece writes one


class Cut(NamedTuple):
  """The pre-tokenizer of a byte-level BPE."""
  splits: tuple[str, ...] = ()  # each cuts out its matches, in this order
  single_digits: bool = False
  gpt2: bool = False  # last, cut by GPT-2's rule, the library's default
  nfc: bool = False  # first, Unicode's composed form
  whole_words: bool = False  # a word in the vocabulary needs no merges


def byte_level(vocab: Mapping[str, int], merges: Iterable[Sequence[str]],
               added: Mapping[str, bool], cut: Cut,
               bos: str | None) -> bytes:
  """Returns a byte-level BPE.

  Args:
    vocab: every piece and its id; bytes as GPT-2 spells them.
    merges: pairs of pieces, in the order in which they are merged.
    added: pieces found in a text before all else, and whether they are
      special, that is, left out of decoded text.
    cut: what comes before the merges.
    bos: the piece to put before a text, if any.
  """
  steps = [{'type': 'Digits', 'individual_digits': True}] * cut.single_digits
  steps += [{'type': 'Split', 'pattern': {'Regex': split},
             'behavior': 'Isolated', 'invert': False} for split in cut.splits]
  level = {'type': 'ByteLevel', 'add_prefix_space': False,
           'trim_offsets': False, 'use_regex': cut.gpt2}
  return _file(
      vocab, merges, added, bos,
      normalizer={'type': 'NFC'} if cut.nfc else None,
      pre_tokenizer={'type': 'Sequence', 'pretokenizers': [*steps, level]},
      decoder=level, ignore_merges=cut.whole_words)


def sentencepiece(model: bytes, bos: str | None) -> bytes:
  """Returns a SentencePiece model of the BPE kind.

  Its merges are all pairs of pieces that make a piece, in the order of scores.
  It differs from the model where two pairs of equal score overlap, and, if the
  model puts a space before a text, after a user-defined piece, where it puts
  one more.

  Args:
    model: the content of a model file.
    bos: as in byte_level.

  Raises:
    ValueError: a model of another kind, or one that normalises the text.
  """
  # pylint: disable-next=g-import-not-at-top
  from sentencepiece import sentencepiece_model_pb2 as pb
  proto = pb.ModelProto.FromString(model)
  kinds = pb.ModelProto.SentencePiece
  rules = proto.normalizer_spec
  if (proto.trainer_spec.model_type != pb.TrainerSpec.BPE
      or rules.precompiled_charsmap or rules.remove_extra_whitespaces):
    raise ValueError('only a SentencePiece model of type BPE that does not '
                     'normalise text has an equivalent tokenizer.json')
  vocab, added, scores = {}, {}, {}
  for i, piece in enumerate(proto.pieces):
    text = piece.piece
    if piece.type == kinds.NORMAL:
      scores[text] = piece.score
    elif piece.type == kinds.USER_DEFINED:
      text = text.replace(_SPACE, ' ')  # matched before spaces are replaced
      added[text] = False
    elif piece.type in (kinds.CONTROL, kinds.UNKNOWN):
      added[text] = True
    vocab[text] = i
  unknown = next(p.piece for p in proto.pieces if p.type == kinds.UNKNOWN)
  respell = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': _SPACE}
  prefix = [{'type': 'Prepend', 'prepend': _SPACE}] * rules.add_dummy_prefix
  strip = [{'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}]
  return _file(
      vocab, _merges(scores), added, bos,
      normalizer={'type': 'Sequence', 'normalizers': [*prefix, respell]},
      pre_tokenizer=None,
      decoder={'type': 'Sequence', 'decoders': [
          {'type': 'Replace', 'pattern': {'String': _SPACE}, 'content': ' '},
          {'type': 'ByteFallback'}, {'type': 'Fuse'},
          *strip * rules.add_dummy_prefix]},
      unk_token=unknown, fuse_unk=True,
      byte_fallback=proto.trainer_spec.byte_fallback)


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
  """All pairs of pieces that make a piece, the best piece's first."""
  ranked = sorted(scores, key=scores.get, reverse=True)
  rank = {piece: i for i, piece in enumerate(ranked)}
  return list(itertools.chain.from_iterable(
      sorted(((piece[:i], piece[i:]) for i in range(1, len(piece))
              if piece[:i] in rank and piece[i:] in rank),
             key=lambda pair: (rank[pair[0]], rank[pair[1]]))
      for piece in ranked))


def _file(vocab, merges, added, bos, normalizer, pre_tokenizer, decoder,
          **model: Any) -> bytes:
  first = None
  if bos is not None:
    begin = {'SpecialToken': {'id': bos, 'type_id': 0}}
    text = [{'Sequence': {'id': name, 'type_id': 0}} for name in 'AB']
    first = {'type': 'TemplateProcessing', 'single': [begin, text[0]],
             'pair': [begin, text[0], begin, text[1]], 'special_tokens': {
                 bos: {'id': bos, 'ids': [vocab[bos]], 'tokens': [bos]}}}
  flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
  return json.dumps({
      'version': '1.0', 'truncation': None, 'padding': None,
      'added_tokens': [
          {'id': vocab[text], 'content': text, 'special': special, **flags}
          for text, special in added.items()],
      'normalizer': normalizer, 'pre_tokenizer': pre_tokenizer,
      'post_processor': first, 'decoder': decoder,
      'model': {'type': 'BPE', 'vocab': vocab, 'merges': list(merges), **model},
  }).encode()
