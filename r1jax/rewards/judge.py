"""A generative judge: a model reads an answer and says whether it is right.

Where no rule can check an answer, a model is given question, reference and
prediction and asked for a verdict in JSON (DeepSeek-R1, arXiv 2501.12948,
2.3.3: there DeepSeek-V3). The judge, a model here or an endpoint, is a function
from texts to texts. After a malformed verdict it is asked again; an answer left
without a verdict scores 0 and is counted.

What is judged was written by a policy that is rewarded for a good verdict. It
is shown as a JSON string, which only its quotation mark ends, and only the
judge's own reply is read.
"""

from collections.abc import Callable, Mapping, Sequence
import string
from typing import Any, NamedTuple

from r1jax import errors
from r1jax.data import thinking
from r1jax.data import verdicts

# (texts, attempt) -> a reply to each, None for one that never came.
Ask = Callable[[Sequence[str], int], list[str | None]]
_RETRY_TEMPERATURE = 0.5


def attempt_temperature(temperature: float, attempt: int) -> float:
  """The temperature of an attempt: a greedy second one would repeat the first.

  Args:
    temperature: of the first attempt, number 0.
    attempt: its number; later ones sample at 0.5 or above.
  """
  return max(temperature, _RETRY_TEMPERATURE) if attempt else temperature


class Verdicts(NamedTuple):
  """The verdicts of a judge on N cases."""
  right: list[bool | None]  # None: no verdict
  counters: dict[str, int]  # judge_malformed, judge_silent, judge_retries


class GenerativeJudge:
  """Decides the accuracy of responses that no rule can check."""

  name = 'no_verdict'  # the part it adds: 1 where it gave no verdict

  def __init__(self, ask: Ask, weight: Callable[[str], float], *,
               retries: int, prompt: str | None = None):
    """`weight` is (task) -> the weight of accuracy in the reward.

    `retries` and `prompt` are those of `ask_verdicts`.

    Raises:
      ConfigError: the prompt does not have '{task}' once as its only field.
    """
    self.ask, self._weight, self.retries = ask, weight, retries
    self._prompt = verdicts.PROMPT if prompt is None else prompt
    fields = [field for _, field, *_ in string.Formatter().parse(self._prompt)
              if field is not None]
    if fields != ['task']:
      raise errors.expected(
          'rewards.judge.prompt', "a text with one '{task}', where question, "
          "reference and prediction go ('{{' is a brace)", self._prompt)

  def apply(self, records: Sequence[Mapping[str, Any]], rows: list[dict]
           ) -> dict[str, int]:
    """Adds verdicts to the logged rows of B records' G responses each.

    The judge is shown only the summary. Returns the counters of Verdicts.
    """
    group = len(rows) // len(records)
    for row in rows:
      row[self.name] = 0.
    asked = [(row, records[n // group]) for n, row in enumerate(rows)
             if records[n // group]['verifier'] == 'judge']
    verdict = ask_verdicts(self.ask, [
        verdicts.Case(record['prompt'], record['answer'],
                      thinking.summary(row['response']))
        for row, record in asked], retries=self.retries, prompt=self._prompt)
    for (row, _), right in zip(asked, verdict.right):
      row[self.name] = float(right is None)
      row['accuracy'] = float(bool(right))
      row['reward'] += self._weight(row['task']) * row['accuracy']
    return verdict.counters


def ask_verdicts(ask: Ask, cases: Sequence[verdicts.Case], *, retries: int,
                 prompt: str = verdicts.PROMPT, max_chars: int = 8_000
                 ) -> Verdicts:
  """The verdict on each case; equal cases are asked about once.

  A blank prediction is wrong, without asking.

  Args:
    ask: the judge; each attempt number has random streams of its own.
    cases: N.
    retries: attempts after the first for a malformed or missing reply.
    prompt, max_chars: see verdicts.judge_prompt.

  Returns:
    Verdicts; of the cases without one, 'judge_silent' counts those whose last
    attempt got no reply, 'judge_malformed' the others.
  """
  texts = [verdicts.judge_prompt(case, prompt, max_chars) for case in cases]
  return Verdicts(*ask_all(
      ask, texts, verdicts.parse_verdict, retries,
      known={text: False for text, case in zip(texts, cases)
             if not case.prediction.strip()}))


def ask_first_errors(ask: Ask, cases: Sequence[verdicts.StepCase], *,
                     retries: int) -> tuple[list[int | None], dict[str, int]]:
  """Where a judge finds the first wrong step of N responses.

  Returns:
    The index of that step, -1 where all are right, None without a verdict; and
    the counters of Verdicts.
  """
  found, counters = ask_all(
      ask, list(map(verdicts.step_prompt, cases)),
      verdicts.parse_first_error, retries)
  valid = lambda index, case: index is not None and index < len(case.steps)
  return [index if valid(index, case) else None
          for index, case in zip(found, cases)], counters


def ask_all(ask: Ask, texts: Sequence[str], parse: Callable[[str], Any],
            retries: int, known: Mapping[str, Any] | None = None
            ) -> tuple[list[Any], dict[str, int]]:
  """The verdict that `parse` reads of the reply to each text, None without one.

  Equal texts are asked once, those of `known`, which have their verdict, never.
  The counters are those of Verdicts.
  """
  verdict_of, silent = dict(known or {}), set()
  counters = dict(judge_malformed=0, judge_silent=0, judge_retries=0)
  left = [text for text in dict.fromkeys(texts) if text not in verdict_of]
  for attempt in range(retries + 1):
    if not left:
      break
    counters['judge_retries'] += len(left) if attempt else 0
    replies = ask(left, attempt)
    silent = {text for text, reply in zip(left, replies, strict=True)
              if reply is None}
    verdict_of |= {text: parse(reply)
                   for text, reply in zip(left, replies) if reply is not None}
    left = [text for text in left if verdict_of.get(text) is None]
  found = [verdict_of.get(text) for text in texts]
  none = [text in silent for text, value in zip(texts, found) if value is None]
  counters['judge_silent'] = sum(none)
  counters['judge_malformed'] = len(none) - sum(none)
  return found, counters
