"""The format reward: one block of thinking, then one block with the answer.

    <think> reasoning </think> <answer> answer </answer>

Source: DeepSeek-R1, arXiv 2501.12948, table 1 and section 2.2.2.
"""

import re

TAGS = ("<think>", "</think>", "<answer>", "</answer>")

_FORM = re.compile(
    r"\s*<think>(?P<think>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*",
    re.DOTALL)


def score(text: str) -> float:
  """1.0 if `text` is exactly the two blocks, neither of them blank, else 0.0.

  Only white space may stand around and between the blocks, and each tag occurs
  once: a second block, a nested tag or trailing text scores 0.
  """
  if any(text.count(tag) != 1 for tag in TAGS):
    return 0.0
  match = _FORM.fullmatch(text)
  if match is None:
    return 0.0
  return float(all(block.strip() for block in match.groups()))
