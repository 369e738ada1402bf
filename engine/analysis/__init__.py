"""What a finished run's stored predictions say, without training again.

Each file but the last few holds pure functions of NumPy arrays: ``logits`` (N, C) are
log-probabilities or whatever a softmax turns into probabilities, ``targets`` (N,) labels in
[0, C), ``class_counts`` (C,) training images. ``adjustment``: the curve over tau. ``scaling``:
temperatures. ``calibration_error``: ECE of several kinds. ``thresholds``, ``priors``,
``conformal``, ``confusions``, ``comparison``: what their names say.

``stored_run`` reads a run folder, ``results`` asks all of it, ``run_screen`` and ``figures`` show
it. ``pairs`` sets runs beside each other, ``table_rows`` the methods of a table, and
``differences`` says why two runs differ.
"""
