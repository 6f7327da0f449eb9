"""Rewards from a reward model: from text to scores.

The model has the vocabulary and the prompt template that it was trained with,
so it is given what another model sampled as text. The paper's rule
(DeepSeek-R1, arXiv 2501.12948, 2.3.4): helpfulness is judged on the summary
alone, harmlessness on the whole response.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import chat
from r1jax.data import templates
from r1jax.data import thinking

_STEP = 64  # lengths are rounded up to it, so that few programs are compiled


class ScoreBatch(NamedTuple):
  """Prompts and G responses to each, as a reward model reads them."""
  tokens: np.ndarray  # i32[B, P]
  length: np.ndarray  # i32[B]
  response: np.ndarray  # i32[B * G, R]
  response_length: np.ndarray  # i32[B * G]


class RewardModel:
  """A model's scores as a part of the reward."""

  def __init__(self, name: str, weight: Callable[[str], float],
               encode: templates.Encode,
               scores: Callable[[ScoreBatch], np.ndarray], *, summary: bool,
               max_len: int, batch: int, shards: int = 1):
    """Keeps its arguments; computes nothing.

    Args:
      name: of the part of the reward.
      weight: (task) -> weight of this score in the reward.
      encode: (prompt, response) -> the model's tokens of each.
      scores: (batch) -> f32[B * G]; every process must call it.
      summary: whether it is shown only what follows the thinking.
      max_len: its longest sequence.
      batch: responses at a time.
      shards: the number of shards that prompts are split over.
    """
    self.name, self._weight = name, weight
    self._encode, self._scores, self._summary = encode, scores, summary
    self._max_len, self._batch, self._shards = max_len, batch, shards

  def apply(self, records: Sequence[Mapping[str, Any]], rows: list[dict]
           ) -> dict[str, int]:
    """Adds the scores to the logged rows of B records' G responses each.

    Returns {'<name>_cut': how many were not read whole}.
    """
    scores, cut = self.score([record['prompt'] for record in records],
                             [row['response'] for row in rows])
    for row, value in zip(rows, scores.tolist()):
      row[self.name] = value
      row['reward'] += self._weight(row['task']) * value
    return {f'{self.name}_cut': cut}

  def score(self, prompts: Sequence[chat.Prompt],
            responses: Sequence[str]) -> tuple[np.ndarray, int]:
    """The scores of B prompts' G responses each, f32[B * G]; how many were cut.

    Cut to the model's longest sequence are a response at its end, and a prompt
    that leaves no room for one at its start. Of a response that the template
    would not hold whole nothing is read, and it scores no more than the worst
    of its group: breaking the template does not pay.
    """
    group = len(responses) // len(prompts)
    if self._summary:
      responses = [thinking.summary(text) for text in responses]
    pairs, whole = zip(*(self._read(prompts[n // group], text)
                         for n, text in enumerate(responses)))
    # A prompt's ids do not depend on the answer: they are kept once.
    asked = [prompt[-self._max_len + 1:] for prompt, _ in pairs[::group]]
    answers = [answer[:self._max_len - len(asked[n // group])]
               for n, (_, answer) in enumerate(pairs)]
    cut = sum(len(asked[n // group]) < len(prompt) or len(kept) < len(answer)
              or not whole[n] for n, ((prompt, answer), kept) in enumerate(
                  zip(pairs, answers)))
    size = -(-self._batch // group // self._shards) * self._shards
    tokens, length = _padded(asked)
    response, response_length = _padded(answers)
    scores = []
    for index in batches.whole_batches(len(asked), size):
      rows = (index[:, None] * group + np.arange(group)).reshape(-1)
      scores.append(self._scores(ScoreBatch(
          tokens[index], length[index], response[rows], response_length[rows])))
    found = np.concatenate(scores)[:len(responses)].reshape(-1, group)
    return np.where(np.reshape(whole, (-1, group)), found,
                    found.min(1, keepdims=True)).reshape(-1), cut

  def _read(self, prompt: chat.Prompt, text: str
           ) -> tuple[tuple[list[int], list[int]], bool]:
    """The tokens of prompt and response, and whether those are all of it."""
    try:
      return self._encode(prompt, text), True
    except chat.Rewritten:
      with errors.section('data', at=f'rewards.models.{self.name}'):
        return self._encode(prompt, ''), False


def _padded(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
  """i32[rows, length], the length a multiple of _STEP; and the lengths."""
  longest = max(map(len, rows))
  return batches.pad_right(rows, -(-longest // _STEP) * _STEP)
