"""Labelled, reproducible images: the common ground of the service and of training.

It imports neither side. Where do seeds become noise? ``latents.py``. What is a model on disk? ``repository.py`` and
``card.py``. What does a graph take and give? ``signature.py``. Which names do service and worker share? ``queue.py``.
"""
