"""Samplers, which training images an epoch sees; a file without underscore is one sampler.

``sampler=class_balanced`` is the class ``ClassBalanced`` of class_balanced.py, and its
keyword-only arguments are keys of ``sampler``.
"""
