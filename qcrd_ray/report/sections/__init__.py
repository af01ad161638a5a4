"""The sections of a report: facts in, HTML out."""
