"""Heads, from pooled features to logits; a file without underscore is one head.

``model.head=cosine`` is the class ``Cosine`` of cosine.py. Of what the run knows it gets what its
constructor names: ``num_features`` and ``num_outputs``; ``init``, how the backbone's own code
starts a head (``default`` or ``kaiming``); and ``prior``, the probability that sigmoid outputs
start from, or None. Its keyword-only arguments are keys of ``model``. The class fact
``gives_cosines`` says that its logits lie in -1 to 1, for losses that scale them; ``starts_anew``
that it goes on from another run's head, and names what it adds to that one, as ``leaves_out`` does
what it does without; ``begins_at`` that it has ``begin_at``, and is given the class means of the
training images (``class_mean``). A head computes in float32 at every ``runtime.precision``:
`models.Classifier` sees to it.
"""
