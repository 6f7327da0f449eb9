"""Makes small vocabularies of all kinds."""

import json

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import processors
from tokenizers import trainers

CORPUS = [
    'Natalia sold 48 clips in April and half as many in May.',
    'How many clips did she sell? <think> 48 + 24 = 72 </think>',
    'User: What is 12 * 34?\nAssistant: <answer> 408 </answer>',
] * 8
END = '<|end|>'
BEGIN = '<|begin|>'


def sentencepiece_model(prefix: str) -> str:
  """Trains a SentencePiece model with end id 1 and no padding piece."""
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(CORPUS), model_prefix=prefix,
      vocab_size=400, hard_vocab_limit=False, byte_fallback=True,
      model_type='bpe', user_defined_symbols=['\n', END],
      normalization_rule_name='identity', add_dummy_prefix=False,
      remove_extra_whitespaces=False, unk_id=0, eos_id=1, bos_id=-1, pad_id=-1,
      minloglevel=2)
  return f'{prefix}.model'


def spaced_model(prefix: str) -> str:
  """Trains a model that puts a space before a text, as Llama 2's does."""
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(CORPUS), model_prefix=prefix, vocab_size=360,
      model_type='bpe', byte_fallback=True, minloglevel=2,
      normalization_rule_name='identity', remove_extra_whitespaces=False)
  return f'{prefix}.model'


def tokenizer(begin: bool = False) -> tokenizers.Tokenizer:
  """A byte-level BPE; with `begin` it puts BEGIN before a text, like Llama."""
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.train_from_iterator(CORPUS, trainers.BpeTrainer(
      vocab_size=320, special_tokens=[END, BEGIN, '<|pad|>'],
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False))
  if begin:
    made.post_processor = processors.TemplateProcessing(
        single=f'{BEGIN} $A', special_tokens=[(BEGIN, made.token_to_id(BEGIN))])
  return made


def save(folder, made, **files) -> str:
  """Writes a tokenizer and its settings: save(f, t, config={...})."""
  folder.mkdir(parents=True, exist_ok=True)
  made.save(str(folder / 'tokenizer.json'))
  for name, settings in files.items():
    (folder / f'{name}.json').write_text(json.dumps(settings))
  return str(folder)


def gguf_file(path, fields: dict[str, object]) -> str:
  """Writes a GGUF file of nothing but metadata; None leaves a field out."""
  writer = gguf.GGUFWriter(path, 'llama')
  for name, value in fields.items():
    if value is None:
      continue
    if isinstance(value, list):
      writer.add_array(name, value)
    else:
      add = {bool: writer.add_bool, int: writer.add_uint32,
             str: writer.add_string}[type(value)]
      add(name, value)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  return str(path)


def byte_level_fields(**changed) -> dict[str, object]:
  """The metadata of `tokenizer` in a GGUF file."""
  model = json.loads(tokenizer().to_str())['model']
  tokens = sorted(model['vocab'], key=model['vocab'].get)
  types = [3 if t in (END, BEGIN, '<|pad|>') else 1 for t in tokens]
  return _fields(dict(
      model='gpt2', pre='gpt-2', tokens=tokens, token_type=types,
      merges=[' '.join(pair) for pair in model['merges']],
      bos_token_id=tokens.index(BEGIN), eos_token_id=tokens.index(END)),
                 changed)


def sentencepiece_fields(path: str, **changed) -> dict[str, object]:
  """The metadata of a SentencePiece model in a GGUF file."""
  proto = sentencepiece_model_pb2.ModelProto()
  with open(path, 'rb') as file:
    proto.ParseFromString(file.read())
  return _fields(dict(
      model='llama', pre='default', tokens=[p.piece for p in proto.pieces],
      scores=[p.score for p in proto.pieces],
      token_type=[p.type for p in proto.pieces], unknown_token_id=0,
      eos_token_id=1, add_bos_token=False, add_space_prefix=False), changed)


def _fields(known, changed):
  return {name if name.startswith('tokenizer.') else f'tokenizer.ggml.{name}':
          value for name, value in (known | changed).items()}
