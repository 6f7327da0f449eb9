"""Makes small vocabularies of both kinds."""

import json

import sentencepiece
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
