"""The shell at a node: pull, verify, converge, supervise, measure, report.

The decisions stand in :mod:`~nearcast.agent.reconcile`, :mod:`~nearcast.agent.backoff` and
:mod:`~nearcast.agent.estimate`, which do no I/O; everything else here does what they say. Nothing is imported here, so
that the command line can ask for a path without loading an agent.
"""
