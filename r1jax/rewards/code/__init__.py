"""Rewards for code: Python programs run against tests, in a sandbox.

    programs      the program of a response
    unit_tests    the tests of a problem, in three forms
    judge         a program and its tests in, a verdict out
    sandbox       bubblewrap's command, and whether it works here
    system_calls  the filter of system calls, as bytes of BPF
    runner        processes in the sandbox, seen from outside
    inside        what runs in the sandbox
    worker        the process that judges, one of a pool

The judge stands outside. What a program prints or returns is compared where the
program cannot reach, so nothing that it does to its own process (patching
builtins, ending early, writing marks of success) makes it pass: it must give
the right values. Checkers that accept several outputs are not supported.
"""
