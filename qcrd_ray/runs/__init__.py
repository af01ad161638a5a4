"""A run as a whole: its folder and files, storage, progress, tracking, results and provenance.

Imports `data` and `recipe`, and from `cluster` whether this process is a submitted job.
"""
