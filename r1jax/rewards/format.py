"""The format reward: one block of thinking, then the answer.

    <think> reasoning </think> <answer> answer </answer>      form 'answer'
    <think> reasoning </think> summary                        form 'summary'

R1-Zero is paid for the first; the cold start brings the second, which R1
speaks. Source: DeepSeek-R1, arXiv 2501.12948, table 1, 2.2.2 and 2.3.1.
"""

import re

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FORMS = ("answer", "summary")

_FORMS = {
    "answer": re.compile(
        r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL),
    "summary": re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)}
_EACH = {"answer": TAGS, "summary": TAGS[:2]}  # tags that occur, each once


def score(text: str, form: str = "answer") -> float:
  """1.0 if `text` is exactly the two parts, neither of them blank, else 0.0.

  Only white space may stand around and between blocks, and a tag of the form
  occurs once, another never: a second block, a nested tag, or text behind an
  answer scores 0.
  """
  if any(text.count(tag) != (tag in _EACH[form]) for tag in TAGS):
    return 0.0
  match = _FORMS[form].fullmatch(text)
  if match is None:
    return 0.0
  return float(all(part.strip() for part in match.groups()))
