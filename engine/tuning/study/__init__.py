"""A study: trials shared by any number of processes through a database that may become unreachable.

``session`` opens one and works on it. ``worker`` asks for trials and ends them, ``proposals`` says
what is tried next, ``trial`` trains, and ``trials`` reads how they ended. ``storage``, ``address``
and ``claims`` are the database; ``trial_owner`` and ``processes`` tell who is alive; ``folder`` is
what is on the disk, ``display`` what a person sees and ``wandb_study`` what W&B does.
"""
