"""Tuning: what is searched, how the search is made, what it looks like, and whether to believe it.

Four packages, each of which imports those before it: ``search``, ``study``, ``figures`` and
``confirm``.
"""
