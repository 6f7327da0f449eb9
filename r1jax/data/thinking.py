"""The parts of a response: its thinking, and the summary that follows."""

THINK, END_OF_THINKING = '<think>', '</think>'


def summary(response: str) -> str:
  """What stands behind the thinking: all that helpfulness is judged by.

  Nothing, where the thinking has no end. DeepSeek-R1 (arXiv 2501.12948,
  2.3.4): helpfulness on the final summary, harmlessness on the whole response.
  """
  _, ended, said = response.rpartition(END_OF_THINKING)
  return '' if not ended and THINK in response else said.strip()
