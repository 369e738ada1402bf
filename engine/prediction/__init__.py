"""Predicting image files with a trained run: what was asked, the files, the table and the CSV."""
