"""Whether an answer is the reference, by mathematics.

    text        Unicode, marks and frames: "The answer is $½$." -> \\frac{1}{2}
    syntax      tokens, and the nodes of a tree
    grammar     one expression; commands: LaTeX's in it
    statements  a whole answer: relations, units, lists
    trees       questions about a tree, and rewritings of it
    evaluation  the value of an expression at a point
    values      whether two expressions have the same value
    sets        intervals and inequalities
    units       units
    equality    all of it: equal(answer, reference)

Nothing here evaluates text as code, and what it costs is bounded: by the length
of an answer, the depth of its brackets, and the digits of its numbers. math-
verify, which r1jax used before, drops what its grammar does not know and
compares the rest.
"""

from r1jax.rewards.mathematics.equality import equal

__all__ = ['equal']
