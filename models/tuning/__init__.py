"""Ways to tune a backbone lightly; a file without underscore is one way.

``model.tune=lora`` is the class ``Lora`` of lora.py, a `Tuning`; its keyword-only arguments are
keys of ``model``. It is handed a backbone whose parameters are all frozen, says which it trains or
adds to, or raises `CannotTuneError` where the backbone has nothing of the kind. The head is always
trained. What is added has a name of `ADDED`, so that all other names stay those of timm.
"""
