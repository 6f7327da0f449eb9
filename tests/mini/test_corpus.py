"""The miniature world: its problems, its corpus and its vocabulary."""

import collections
import hashlib
import json
import random
import re

import pytest
import reasoning_gym
import sentencepiece

from r1jax.data import splits
from r1jax.data import templates
from r1jax.mini import arithmetic
from r1jax.mini import corpus
from r1jax.mini import general

DIALOGUE = re.compile(r'User: (.*?)\nAssistant: (.*)', re.S)


@pytest.fixture(name='documents', scope='module')
def _documents():
  return corpus.documents(5000, seed=3)


@pytest.fixture(scope='module')
def pieces():
  return sentencepiece.SentencePieceProcessor(model_file=str(corpus.MODEL))


def _score(record, answer):
  scorer = reasoning_gym.get_score_answer_fn(record['task'])
  return scorer(answer, record['entry'])


def test_records_have_the_contract_s_form_and_are_balanced(problems):
  assert collections.Counter(r['task'] for r in problems) == dict.fromkeys(
      corpus.TASKS, 300)
  assert len({r['prompt'] for r in problems}) == len(problems)
  for record in problems:
    assert set(record) == {'prompt', 'answer', 'task', 'verifier', 'entry'}
    assert record['verifier'] == 'reasoning_gym'
    assert json.loads(json.dumps(record))['prompt'] == record['prompt']
    assert _score(record, record['answer']) == 1.
    assert _score(record, '1' + record['answer']) < 1.


def test_an_entry_is_what_reasoning_gym_gives(problems):
  """Made again from its index alone, by reasoning_gym itself."""
  for record in problems[:60]:
    metadata = record['entry']['metadata']
    assert metadata['source_dataset'] == record['task']
    assert record['prompt'] == record['entry']['question']
    settings = dict(arithmetic.TASKS[record['task']].settings)
    seed = corpus._seed(record['task'], 'records', 3)
    again = reasoning_gym.create_dataset(record['task'], seed=seed, **settings)
    assert again[metadata['source_index']] == record['entry']


def test_same_seed_same_draws_and_another_seed_others():
  for records in (corpus.reasoning_records, corpus.general_records):
    assert records('train', 30, 1) == records('train', 30, 1)
  assert corpus.documents(50, 1) == corpus.documents(50, 1)
  first, second = corpus.documents(50, 1), corpus.documents(50, 2)
  assert len(set(first) & set(second)) < 10
  prompts = [{r['prompt'] for r in corpus.reasoning_records('train', 30, s)}
             for s in (1, 2)]
  assert len(prompts[0] & prompts[1]) < 3


def test_draws_are_the_same_in_every_process_and_version():
  """Update the value when the world is changed on purpose."""
  text = json.dumps([corpus.documents(200),
                     corpus.reasoning_records('heldout', 30),
                     corpus.general_records('heldout', 30)], ensure_ascii=False)
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == '6e2d9a1729f2b9de'


def test_held_out_prompts_occur_nowhere_else(problems, documents):
  held = (corpus.reasoning_records('heldout', 900, seed=3)
          + corpus.general_records('heldout', 300, seed=3))
  assert all(splits.held_out(r['prompt']) for r in held)
  seen = problems + corpus.general_records('train', 300, seed=3)
  assert not any(splits.held_out(r['prompt']) for r in seen)
  dialogues = [d for d in documents if d.startswith('User:')]
  said = [m for m in map(DIALOGUE.fullmatch, dialogues) if m]
  assert len(said) > .9 * len(dialogues) > .6 * len(documents)
  assert not any(splits.held_out(m[1]) for m in said)
  text = '\x00'.join(documents)
  assert not any(f'User: {r["prompt"]}\n' in text for r in held)


def test_an_eighth_is_held_out_whatever_the_order_of_the_words():
  prompts = {f'What is {a} * {b}?' for a in range(100) for b in range(a)}
  share = sum(map(splits.held_out, prompts)) / len(prompts)
  assert share == pytest.approx(1 / 8, abs=.015)
  assert all(splits.held_out(f'What is {a} * {b}?')
             == splits.held_out(f'What is {b} * {a}?')
             for a in range(30) for b in range(a))


def test_the_corpus_has_its_share_of_reasoning(documents):
  question = re.compile('User: (State the final|Your task is|Multiply the c)')
  share = sum(bool(question.match(d)) for d in documents) / len(documents)
  assert share == pytest.approx(corpus.REASONING, abs=.02)


def test_general_records():
  records = corpus.general_records('heldout', 90)
  assert len({r['prompt'] for r in records}) == 90
  assert {r['task'] for r in records} == set(general.CHECKABLE)
  for task in general.GENERAL:
    pairs = collections.defaultdict(set)
    for prompt, answer in general.prompt_answer_pairs(task):
      pairs[prompt].add(answer)
    several = max(map(len, pairs.values())) > 1
    assert several == (task not in general.CHECKABLE), task


def test_what_cannot_be_drawn_is_refused():
  with pytest.raises(ValueError, match="received 'test'"):
    corpus.reasoning_records('test', 1)
  with pytest.raises(ValueError, match='mean chain_sum[?]'):
    corpus.reasoning_records('train', 1, tasks=('chain_sums',))
  with pytest.raises(ValueError, match="distinct 'heldout' problems"):
    corpus.reasoning_records('heldout', 1000, tasks=('complex_arithmetic',))
  with pytest.raises(ValueError, match="distinct 'heldout' prompts"):
    corpus.general_records('heldout', 500, tasks=('factual',))


def test_vocabulary_loses_nothing(documents, pieces):
  assert (pieces.pad_id(), pieces.eos_id(), pieces.unk_id(),
          pieces.bos_id()) == (0, 1, 2, -1)
  for document in documents:
    ids = pieces.encode(document)
    assert pieces.decode(ids) == document
    assert not any(map(pieces.is_unknown, ids))
    assert not any(map(pieces.is_byte, ids))
  assert pieces.decode(pieces.encode('  a\n\n Ω')) == '  a\n\n Ω'


def test_vocabulary_keeps_tags_digits_and_characters_whole(documents, pieces):
  for symbol in ('<think>', '</think>', '<answer>', '</answer>', '\n'):
    assert len(pieces.encode(symbol)) == 1
    holding = [i for i in range(pieces.get_piece_size())
               if symbol in pieces.id_to_piece(i)]
    assert holding == pieces.encode(symbol)
  assert all(len(p) == 1 or not re.search(r'\d', p) for p in map(
      pieces.id_to_piece, range(pieces.get_piece_size()))
             if not p.startswith('<0x'))
  chinese = set(re.findall('[\u4e00-\u9fff]', ''.join(documents)))
  assert len(chinese) > 200
  assert not any(pieces.is_unknown(pieces.piece_to_id(c)) for c in chinese)


def test_prompt_and_response_encode_alone_as_together(problems, pieces):
  rng = random.Random(0)
  for record in problems:
    prompt = templates.mini(record['prompt'])
    response = ' ' + arithmetic.respond(rng, record['entry']).text
    assert pieces.encode(prompt) + pieces.encode(response) == (
        pieces.encode(prompt + response))


def test_prompts_and_responses_are_short(problems, pieces):
  lengths = sorted(len(pieces.encode(templates.mini(r['prompt'])))
                   for r in problems)
  assert lengths[len(lengths) // 2] <= 40 and lengths[-1] <= 72
  rng = random.Random(0)
  median = {}
  for mode in arithmetic.MODES:
    spent = sorted(
        len(pieces.encode(arithmetic.respond(rng, r['entry'], mode).text))
        for r in problems)
    assert spent[-1] <= 224
    median[mode] = spent[len(spent) // 2]
  assert 2 * median['direct_tagged'] < median['short_en']
  assert 1.4 * median['short_en'] < median['long_en']


def test_the_shipped_vocabulary_is_the_one_this_code_makes(tmp_path, pieces):
  """Update the file when the world or SentencePiece's trainer changed."""
  file = tmp_path / 'made.model'
  file.write_bytes(corpus.train_vocab())
  made = sentencepiece.SentencePieceProcessor(model_file=str(file))
  assert [made.id_to_piece(i) for i in range(made.get_piece_size())] == [
      pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
