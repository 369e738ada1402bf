"""Learning-rate schedules; a file without underscore is one shape, its signature its keys.

``schedule=steps`` is the class ``Steps`` of steps.py. Warm-up, length and unit are keys that all
schedules share; see :func:`engine.training.rates.rate_factor`.
"""
