"""The figures of a search; ``drawing`` draws all that its trials allow."""
