"""Tests of batches: laws of order, and packing against a plain loop."""

import time

import numpy as np
import pytest

from r1jax import errors
from r1jax.data import batches
from r1jax.data import ragged

import ragged_rows


GOLDEN = [[0, 2, 1], [5, 4, 3], [5, 3, 2], [4, 1, 0]]


def _set(size):
  tokens = ragged.Builder('i')
  for i in range(size):
    tokens.add(list(range(1, 2 + i % 3)))
  rows = ragged.Ragged(*tokens.arrays('ids').values())
  return batches.PromptSet(
      ragged.Padded(rows, 4, 2), rows.length.astype(np.int32),
      tuple({'prompt': str(i)} for i in range(size)), ())


def _ids(prompts, steps, batch, seed=0):
  return [batches.prompt_batch(prompts, s, batch, seed).id.tolist()
          for s in steps]


def test_prompts_are_right_padded_and_lengths_tell():
  found = _set(3)
  np.testing.assert_array_equal(
      found.tokens[np.arange(3)], [[1, 2, 2, 2], [1, 2, 2, 2], [1, 2, 3, 2]])
  np.testing.assert_array_equal(found.length, [1, 2, 3])
  assert found.tokens.shape == (3, 4)
  assert found.tokens[np.arange(3)].dtype == found.length.dtype == np.int32


def test_a_batch_belongs_together():
  prompts = _set(7)
  batch = batches.prompt_batch(prompts, 5, 3, seed=1)
  np.testing.assert_array_equal(batch.tokens, prompts.tokens[batch.id])
  np.testing.assert_array_equal(batch.length, prompts.length[batch.id])
  assert [r['prompt'] for r in batch.records] == [str(i) for i in batch.id]
  assert batches.with_step(batch, 5).records == tuple(
      record | {'step': 5} for record in batch.records)


def test_order_is_a_function_of_seed_and_step_for_ever():
  with pytest.raises(ValueError, match='read-only'):  # it is kept
    batches._permutation(0, 0, 6)[0] = 1
  # Never update these: a changed order breaks the resumption of every run.
  assert _ids(_set(6), range(4), 3) == GOLDEN
  assert _ids(_set(6), [3, 0], 3) == [GOLDEN[3], GOLDEN[0]]
  assert _ids(_set(6), range(4), 3, seed=1) != GOLDEN


def test_no_prompt_comes_twice_in_an_epoch_and_all_come_in_time():
  prompts = _set(10)
  for epoch in range(3):
    ids = sum(_ids(prompts, range(3 * epoch, 3 * epoch + 3), 3), [])
    assert len(set(ids)) == 9
  assert set(sum(_ids(prompts, range(30), 3), [])) == set(range(10))
  first, second = _ids(prompts, [0, 3], 3)
  assert first != second


@pytest.mark.parametrize('count, size', [(8, 4), (10, 4), (3, 4), (3, 8)])
def test_slices_are_whole_batches_and_each_prompt_has_one_record(count, size):
  prompts = _set(count)
  slices = [batches.slice_of(prompts, start, size)
            for start in range(0, count, size)]
  assert all(len(s.id) == len(s.tokens) == len(s.length) == size
             for s in slices)
  assert sum((s.records for s in slices), ()) == prompts.records
  ids = np.concatenate([s.id for s in slices])
  np.testing.assert_array_equal(ids, np.arange(len(ids)) % count)


def test_more_prompts_than_the_set_holds_are_refused():
  with pytest.raises(ValueError, match='config.rl.prompts.*5.*received 6'):
    batches.prompt_batch(_set(5), 0, 6, seed=0)


def _documents(count, longest, seed=0):
  rng = np.random.default_rng(seed)
  sizes = rng.integers(1, longest + 1, count)
  return [rng.integers(0, 9, size) for size in sizes]


def _segments(rows):
  """Reads documents back from rows, checking every rule of the layout."""
  found = []
  for tokens, segment, position, weight in zip(*rows):
    filled = int((segment > 0).sum())
    assert not segment[filled:].any() and not weight[filled:].any()
    assert (np.diff(segment[:filled]) >= 0).all()
    assert sorted(set(segment[:filled])) == list(range(1, segment.max() + 1))
    for s in range(1, segment.max() + 1):
      here = segment == s
      assert position[here].tolist() == list(range(here.sum()))
      assert weight[here].tolist() == [0.] + [1.] * (here.sum() - 1)
      found.append(tuple(tokens[here].tolist()))
  return found


def test_every_document_lies_whole_in_one_row_once_an_epoch():
  documents = _documents(200, longest=16)
  packed = batches.packed(ragged_rows.of(documents), seq_len=16)
  rows = packed.counts['rows']
  found = _segments(packed.batch(0, rows, seed=0))
  assert sorted(found) == sorted(tuple(d.tolist()) for d in documents)
  assert packed.counts['padding'] == rows * 16 - sum(map(len, documents))
  assert packed.counts['split'] == packed.counts['dropped'] == 0
  # What any-fit packing guarantees: one row at most is half empty.
  filled = np.add.reduceat(packed.length, packed.first[:-1])
  assert (filled <= 8).sum() <= 1


def test_a_row_by_hand():
  rows = batches.packed(
      ragged_rows.of([[7, 0, 1]]), seq_len=5).batch(0, 1, seed=0)
  assert rows.tokens.tolist() == [[7, 0, 1, 0, 0]]
  assert rows.segment.tolist() == [[1, 1, 1, 0, 0]]
  assert rows.position.tolist() == [[0, 1, 2, 0, 0]]
  assert rows.weight.tolist() == [[0, 1, 1, 0, 0]]  # the token 0 counts
  assert [x.dtype for x in rows] == [np.int32] * 3 + [np.float32]


def test_best_fit_takes_the_tightest_row():
  rows, columns = batches._best_fit([6, 8, 2, 4, 2], seq_len=10)
  # 2 goes to row 1, which has 2 left, not to row 0, which has 4.
  assert rows.tolist() == [0, 1, 1, 0, 2]
  assert columns.tolist() == [0, 0, 8, 6, 0]
  # Two rows have 4 left: the second is still open when the first is full.
  rows, _ = batches._best_fit([6, 6, 4, 4], seq_len=10)
  assert sorted(rows.tolist()) == [0, 0, 1, 1]


def test_long_documents_are_split_and_empty_ones_dropped():
  documents = [np.arange(10), np.arange(3), np.arange(0)]
  packed = batches.packed(ragged_rows.of(documents), seq_len=4)
  assert packed.counts['split'] == 1 and packed.counts['dropped'] == 1
  found = _segments(packed.batch(0, packed.counts['rows'], seed=0))
  assert sorted(found) == [(0, 1, 2), (0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
  with pytest.raises(errors.ConfigError, match='config.data.task: none of'):
    batches.packed(ragged_rows.of(documents[2:]), seq_len=2)


def test_a_piece_knows_its_document_and_stands_among_distant_ones():
  documents = [np.full(n % 3 * 4, n) for n in range(90)]  # a third is empty
  packed = batches.packed(ragged_rows.of(documents), seq_len=4)
  for number, start, length in zip(
      packed.document, packed.start, packed.length):
    assert set(packed.tokens[start:start + length]) == {number}
  packed = batches.packed(
      ragged_rows.of([np.full(2, n) for n in range(64)]), seq_len=8)
  spread = np.ptp(packed.document.reshape(-1, 4), axis=1)
  assert np.mean(spread) > 16  # in order it would be 3


def test_rows_are_a_function_of_seed_and_step():
  packed, again = (
      batches.packed(ragged_rows.of(_documents(60, longest=8)), seq_len=8)
      for _ in range(2))
  for step in (0, 5, 11):
    for a, b in zip(packed.batch(step, 4, 3), again.batch(step, 4, 3)):
      np.testing.assert_array_equal(a, b)
  a, b = packed.batch(0, 4, 3), packed.batch(0, 4, 4)
  assert (a.tokens != b.tokens).any()


def test_more_rows_than_a_corpus_fills_are_refused():
  packed = batches.packed(ragged_rows.of([np.arange(3)]), seq_len=4)
  with pytest.raises(errors.ConfigError,
                     match='config.lm.batch.*1 rows.*received 2'):
    packed.batch(0, 2, seed=0)


def test_packing_is_fast():
  documents = _documents(50_000, longest=400)
  start = time.perf_counter()
  batches.packed(ragged_rows.of(documents), seq_len=1024)
  assert time.perf_counter() - start < 5


def test_weights_go_with_their_tokens():
  packed = batches.packed(
      ragged_rows.of([[7, 8, 9], [5, 6]]), seq_len=6,
      weights=ragged_rows.of_weights([[0, 0, 1], [0, .5]]))
  rows = packed.batch(0, 1, seed=0)
  weight_of = dict(zip(rows.tokens[0], rows.weight[0]))
  assert weight_of == {7: 0, 8: 0, 9: 1, 5: 0, 6: .5, 0: 0}
