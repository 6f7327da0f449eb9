"""The tokenizer inside a GGUF file (llama.cpp's).

Its tables are converted back to the formats that they came from: a byte-level
BPE to a tokenizer.json, a SentencePiece model to a model file, the other
metadata to tokenizer_config.json and generation_config.json.
"""

from collections.abc import Callable
import pathlib
from typing import Any

from r1jax import errors
from r1jax.data.vocabs import base
from r1jax.data.vocabs import convert
from r1jax.data.vocabs import gguf_header
from r1jax.data.vocabs import huggingface
from r1jax.data.vocabs import sentencepiece

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6

_NAMES = dict(bos='bos', eos='eos', unk='unknown', sep='seperator',  # sic
              pad='padding', cls='cls', mask='mask')
_ENDS = ('eos', 'eot', 'eom')  # of a text, a turn, a message


def _list_of(*kinds: type) -> Callable[[Any], bool]:
  return lambda value: isinstance(value, list) and {
      *map(type, value)} <= {*kinds}


_BOOL = ('a boolean', lambda value: isinstance(value, bool))
_TYPES = {
    'pre': ('a name', lambda value: isinstance(value, str)),
    'tokens': ('a list of texts', _list_of(str)),
    'merges': ('a list of texts', _list_of(str)),
    'scores': ('a list of numbers', _list_of(float, int)),
    'token_type': ('a list of types, 1 to 6', lambda value: _list_of(int)(
        value) and {*value} <= {*range(1, 7)}),
    'add_bos_token': _BOOL, 'add_space_prefix': _BOOL,
    'remove_extra_whitespaces': _BOOL,
} | {f'{name}_token_id': ('an id', lambda value: type(value) is int)
     for name in {*_NAMES.values(), *_ENDS}}

# Words as in the tokenizer.json of the models themselves.
_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
          r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
_DEEPSEEK = (
    r'\p{N}{1,3}',
    '[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+',
    r'[!"#$%&\'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+'
    r'|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*'
    r'|\s*[\r\n]+|\s+(?!\S)|\s+')
_GPT2 = convert.Cut(gpt2=True)
_LLAMA3 = convert.Cut((_WORDS % '{1,3}',), whole_words=True)
_CUTS = {
    'default': _GPT2, 'gpt-2': _GPT2,
    'smollm': convert.Cut(single_digits=True, gpt2=True),
    'llama-bpe': _LLAMA3, 'llama3': _LLAMA3, 'llama-v3': _LLAMA3,
    'qwen2': convert.Cut((_WORDS % '',), nfc=True),
    'deepseek-v3': convert.Cut(_DEEPSEEK),
}


def load(path: str, eos: str | None = None) -> base.Vocab:
  """Reads a GGUF file. See load_vocab.

  Raises:
    ConfigError: names the field of the file that is missing or unknown.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise _error(path, 'there is no such file')
  try:
    metadata = gguf_header.read_header(file).metadata
  except (OSError, ValueError) as e:
    raise _error(path, f'is not a GGUF file: {e}') from e
  kind = metadata.get('tokenizer.ggml.model')
  if not isinstance(kind, str) or kind not in _KINDS:
    raise _error(path, 'expected tokenizer.ggml.model to be '
                 f'{" or ".join(map(repr, _KINDS))}, received {kind!r}')
  return _KINDS[kind](_Tables(path, metadata), eos)


class _Tables:
  """A file's metadata of the tokenizer, by names without their prefix."""

  def __init__(self, path: str, metadata: dict[str, Any]):
    self.path, self._metadata = path, metadata
    for name, (wanted, is_one) in _TYPES.items():
      value = self.get(name)
      if value is not None and not is_one(value):
        raise _error(path, f'expected tokenizer.ggml.{name} to be {wanted}, '
                     f'received {value!r:.80}')
    self.tokens, self.types = self['tokens'], self.column('token_type')
    if len(set(self.tokens)) != len(self.tokens):
      raise _error(path, 'has a token twice in tokenizer.ggml.tokens')
    while self.types and self.types[-1] == _UNUSED:  # they pad the embeddings
      self.tokens, self.types = self.tokens[:-1], self.types[:-1]

  def get(self, name: str, default: Any = None) -> Any:
    return self._metadata.get(f'tokenizer.ggml.{name}', default)

  def __getitem__(self, name: str) -> Any:
    found = self.get(name)
    if found is None:
      raise _error(self.path, f'has no tokenizer.ggml.{name}')
    return found

  def column(self, name: str) -> list[Any]:
    """A value for each token."""
    found, size = self[name], len(self['tokens'])
    if len(found) != size:
      raise _error(self.path, f'has {size} tokenizer.ggml.tokens and '
                   f'{len(found)} tokenizer.ggml.{name}')
    return found

  def token(self, role: str) -> str | None:
    """The token of a role, None if the file names none."""
    i = self.token_id(_NAMES[role])
    return None if i is None else self.tokens[i]

  def token_id(self, name: str) -> int | None:
    """The id in a field of the file, None if it has none."""
    i = self.get(f'{name}_token_id')
    if i is not None and not 0 <= i < len(self.tokens):
      raise _error(self.path, f'expected tokenizer.ggml.{name}_token_id to be '
                   f'one of {len(self.tokens)} tokens, received {i}')
    return i

  def files(self, add_bos: bool) -> base.Files:
    """The settings of a folder's files, from a GGUF file's metadata."""
    named = {f'{role}_token': self.token(role) for role in _NAMES}
    ends = [self.token_id(end) for end in _ENDS]
    template = self._metadata.get('tokenizer.chat_template')
    if not isinstance(template, str | None):
      raise _error(self.path, 'expected tokenizer.chat_template to be a '
                   f'template, received {template!r:.80}')
    return base.Files(
        tokenizer={'add_bos_token': add_bos} | {
            name: token for name, token in named.items() if token is not None},
        generation={'eos_token_id': [i for i in ends if i is not None]},
        model={}, chat_template=template)


def _byte_level(tables: _Tables, eos: str | None):
  cut = tables['pre']
  if cut not in _CUTS:
    raise _error(tables.path, 'expected tokenizer.ggml.pre to be one of '
                 f'{", ".join(_CUTS)}; received {cut!r}')
  add_bos = tables.get('add_bos_token', _CUTS[cut] is _LLAMA3)
  bos = tables.token('bos') if add_bos else None
  vocab = {token: i for i, token in enumerate(tables.tokens)}
  merges = [merge.split(' ') for merge in tables['merges']]
  for pair in merges:
    if len(pair) != 2 or not {*pair, ''.join(pair)} <= vocab.keys():
      raise _error(tables.path, f'expected pairs of tokens that make a token '
                   f'in tokenizer.ggml.merges, received {" ".join(pair)!r}')
  added = {token: kind == _CONTROL
           for token, kind in zip(tables.tokens, tables.types)
           if kind in (_CONTROL, _USER_DEFINED)}
  model = convert.byte_level(vocab, merges, added, _CUTS[cut], bos)
  return huggingface.HuggingFaceVocab(
      tables.path, model, tables.files(bos is not None), eos)


def _sentencepiece(tables: _Tables, eos: str | None):
  # pylint: disable-next=g-import-not-at-top
  from sentencepiece import sentencepiece_model_pb2 as pb
  unknown = tables.token('unk')
  proto = pb.ModelProto()
  for token, score, kind in zip(
      tables.tokens, tables.column('scores'), tables.types):
    if token == unknown:  # some files list it as a control token
      kind = _UNKNOWN
    proto.pieces.add(piece=token.replace(' ', '▁'), score=score, type=kind)
  proto.trainer_spec.model_type = pb.TrainerSpec.BPE
  proto.trainer_spec.byte_fallback = _BYTE in tables.types
  rules = proto.normalizer_spec
  rules.name = 'identity'
  rules.add_dummy_prefix = tables.get('add_space_prefix', True)
  rules.remove_extra_whitespaces = tables.get('remove_extra_whitespaces', False)
  return sentencepiece.SentencePieceVocab(
      tables.path, proto.SerializeToString(),
      tables.files(tables.get('add_bos_token', True)), eos)


_KINDS = {'gpt2': _byte_level, 'llama': _sentencepiece}


def _error(path: str, problem: str) -> errors.ConfigError:
  return errors.ConfigError('vocab.path', f'{path}: {problem}')
