"""The paper (QCRD, arXiv 2405.13014) in pure torch: no Ray, no DeepSpeed, no recipe; it runs on a
bare machine.

Read in this order: ``examples`` (what goes in), ``losses`` (equations 2-8), ``selection`` (min and
max of 6 and 7), ``objectives`` (what is selected and what is summed), ``student`` and
``discriminator`` (the two networks and one training step of each). ``batching`` and ``collation``
carry examples to them; ``negatives`` and ``augmentation`` make their rationales; ``scoring``
measures.
"""
