"""Retraining: a job from the queue to a live model, through any crash.

``workflow`` tells the job's five steps, in order. Each works with a ``site`` (data folder, repository, queue, and
``children``: processes that can be killed); ``attempts`` keeps what each attempt leaves, ``warm`` finds the weights to
begin from, ``tasks`` is what the children do besides training, with ``recover`` and, for the decision, ``gate``.
"""
