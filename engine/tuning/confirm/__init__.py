"""The confirm stage: the best settings and the default, trained again on fresh seeds.

The best value of a search is the best of many noisy ones, and therefore too good. Only here is test
predicted, once a run; what chooses is validation.

``candidates`` are the settings and ``jobs`` their runs; ``confirmed_rows`` is what these found and
``closing_table`` shows it; ``study_report`` and ``comparison_report`` are what a search, or a
comparison of several, says and writes at its end.
"""
