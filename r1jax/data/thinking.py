"""The parts of a response: its thinking, and the answer that follows.

The tags are those of DeepSeek-R1 (arXiv 2501.12948, table 1). R1-Zero tags its
answer, too; R1 writes a summary after its thinking.
"""

THINK, END_OF_THINKING = '<think>', '</think>'
ANSWER, END_OF_ANSWER = '<answer>', '</answer>'
TAGS = (THINK, END_OF_THINKING, ANSWER, END_OF_ANSWER)

THOUGHT = f'{THINK} {{}} {END_OF_THINKING}'  # to be filled with a thought,
TAGGED = f'{THOUGHT} {ANSWER} {{}} {END_OF_ANSWER}'  # and an answer


def summary(response: str) -> str:
  """The text after the thinking: all that helpfulness is judged by.

  Empty where the thinking is not closed. DeepSeek-R1 (arXiv 2501.12948, 2.3.4):
  helpfulness on the final summary, harmlessness on the whole response.
  """
  _, ended, text = response.rpartition(END_OF_THINKING)
  return '' if not ended and THINK in response else text.strip()
