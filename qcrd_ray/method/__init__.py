"""The paper (QCRD, arXiv 2405.13014) in pure torch: no Ray, no DeepSpeed and no recipe.

Read in this order: ``examples`` (what goes in), ``losses`` (equations 2-8), ``selection`` (min and
max of 6 and 7), ``objectives`` (what is selected and what is summed), ``student`` and
``discriminator`` (the two networks and one training step of each). ``tokenization``, ``batching``
and ``collation`` turn texts into batches, ``negatives`` chooses and corrupts rationales,
``weights`` and ``reference`` give each rationale its numbers, and ``ranking`` measures.
"""
