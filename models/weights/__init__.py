"""Weights of other code, converted.

``python -m models.weights FILE MODEL OUT.safetensors`` gives the tensors of a file that other code
wrote the names of a model of timm, where both have the same shapes in the same order.
"""
