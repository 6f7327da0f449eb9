"""Reports: what a run or a pipeline has measured, as one HTML page."""

REPORTS = {  # config.report: the module whose write_report(config, workdir)
    'comparison': 'r1jax.reports.comparison',
    'drawbacks': 'r1jax.reports.drawbacks',
    'mcts': 'r1jax.reports.mcts',
    'prm': 'r1jax.reports.prm',
    'r1': 'r1jax.reports.r1',
    'rlhf': 'r1jax.reports.rlhf',
}
