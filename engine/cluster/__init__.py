"""Runs on a cluster: how jobs are asked for, sent and followed."""
