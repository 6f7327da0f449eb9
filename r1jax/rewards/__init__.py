"""Rewards, on the host: decoded responses in, numbers out.

A reward is a weighted sum of named parts, each a number per response:

    accuracy    1 if the answer is right, else 0    (accuracy, verifiers)
    format      1 if thinking and answer are well formed, else 0
    language    share of the thinking's words in its language    (language)
    mixed       1 if more than a tenth of the words are in another
    overlong    0 down to -1 near the token limit               (text_rules)
    repetition  0 down to -1 as word n-grams repeat
    length_rule short responses, or a budget of tokens          (lengths)
    a user's function                                           (functions)
    the score of a reward model                                     (model)
    the scores of a response's steps, as one                      (process)

The table of parts is in score, that of verifiers in verifiers; whether an
answer is the reference is up to mathematics. Where no rule can check an answer,
a model may (judge). Verifiers and users' functions run in processes that can be
killed (workers, the parent's side; sandbox and function_worker, the child's);
what a verifier found is kept (kept).
"""

from r1jax.rewards.functions import column_means
from r1jax.rewards.judge import GenerativeJudge
from r1jax.rewards.lengths import LengthReward
from r1jax.rewards.model import RewardModel
from r1jax.rewards.model import ScoreBatch
from r1jax.rewards.process import ProcessReward
from r1jax.rewards.process import StepBatch
from r1jax.rewards.score import Response
from r1jax.rewards.score import Scorer
from r1jax.rewards.score import Scores

# A reward of groups, computed after those of single responses.
GroupReward = RewardModel | ProcessReward | GenerativeJudge | LengthReward

__all__ = ['GenerativeJudge', 'GroupReward', 'LengthReward', 'ProcessReward',
           'Response', 'RewardModel', 'ScoreBatch', 'Scorer', 'Scores',
           'StepBatch', 'column_means']
