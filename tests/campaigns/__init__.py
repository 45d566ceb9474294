"""Campaigns: what strangers, faults and swaps do to real processes, by a seed, going on where they stopped.

    make test-campaigns                                     # each at most an hour
    python -m tests.campaigns archives models --minutes 20
    python -m tests.campaigns --seed 2 --cases 50 kills

Each keeps a journal below ``var/campaigns`` and writes its table to ``benchmarks/campaigns``. Only the loopback
interface is used. ``test_campaigns.py`` runs a few cases of each.
"""
