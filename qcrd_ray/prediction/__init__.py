"""Answers of a student to a large file of questions, by Ray Data.

It may import inference, models, tasks, run, cluster, data and recipe, and no other stage.
"""
