"""The losses of target tokens, without the logits of all of them at once.

At a vocabulary of 152,000 words the logits of a few thousand tokens take more memory than the
student. So the layer that makes logits, the head, is asked for losses instead: it takes a chunk of
tokens, makes their logits and reduces them, and makes them again in the backward pass (Chen et al.
2016, arXiv 1604.06174). The values and the gradients are those of the whole logits.

The head stays the student's own module and is called once, so that hooks on it, such as those with
which ZeRO 3 gathers its weights, work as they do for logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from qcrd_ray.method.losses import token_nll

CHUNK_LOGITS = 2**27  # that are held at a time: 512 MiB in float32

_ends_in_head: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def token_losses(
    student: PreTrainedModel, read: Callable[[], Tensor], labels: Tensor, *, chunk: int
) -> Tensor:
    """The loss in nats of each token of ``labels`` ``[targets, tokens]``, 0 where ignored.

    ``read`` runs ``student`` on the targets and returns what it returns as logits. ``chunk``: how
    many logits are made at a time. A student that changes its logits after the head (softcapping, a
    bias) has them made whole.
    """
    if not ends_in_head(student):
        return token_nll(read(), labels)
    with _head_makes_losses(student, labels, chunk):
        return read()


def chunked_losses(
    hidden: Tensor, project: Callable[[Tensor], Tensor], labels: Tensor, *, tokens: int
) -> Tensor:
    """The losses ``[targets, tokens]`` of ``labels`` from ``hidden`` ``[targets, tokens, width]``.

    ``project`` makes logits of hidden states; it gets ``tokens`` of them at a time.
    """

    def losses(part: Tensor, wanted: Tensor) -> Tensor:
        return token_nll(project(part), wanted)

    if labels.numel() <= tokens:  # then making the logits twice would save nothing
        return losses(hidden, labels)
    parts = zip(hidden.flatten(0, 1).split(tokens), labels.flatten().split(tokens), strict=True)
    if torch.is_grad_enabled():
        made = [
            checkpoint(losses, *part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    else:
        made = [losses(*part) for part in parts]
    return torch.cat(made).view(labels.shape)


def ends_in_head(student: PreTrainedModel) -> bool:
    """Whether the student's logits are its head's output as it is; tried once on one token."""
    if student not in _ends_in_head:
        _ends_in_head[student] = _try_head(student)
    return _ends_in_head[student]


@torch.no_grad()
def _try_head(student: PreTrainedModel) -> bool:
    head = student.get_output_embeddings()
    if head is None:
        return False
    made: list[Tensor] = []

    def ones(hidden: Tensor) -> Tensor:
        made.append(torch.ones_like(plain(hidden)))
        return made[-1]

    token = torch.zeros(1, 1, dtype=torch.long, device=student.device)
    inputs = {"input_ids": token, "attention_mask": torch.ones_like(token)}
    if student.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = token
    was_training = student.training
    student.eval()
    try:
        with _forward_of(head, ones) as plain:
            logits = student(**inputs, use_cache=False).logits
    finally:
        student.train(was_training)
    # anything done to them since would have made another tensor, or other values
    same = logits.data_ptr() == made[0].data_ptr() and logits.shape == made[0].shape
    return same and bool((logits == 1).all())


@contextmanager
def _head_makes_losses(student: PreTrainedModel, labels: Tensor, chunk: int) -> Iterator[None]:
    head = student.get_output_embeddings()
    assert head is not None, "ends_in_head has found none"
    tokens = max(1, chunk // student.config.get_text_config().vocab_size)
    with _forward_of(
        head, lambda hidden: chunked_losses(hidden, plain, labels, tokens=tokens)
    ) as plain:
        yield


@contextmanager
def _forward_of(
    module: nn.Module, forward: Callable[[Tensor], Tensor]
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Replace what ``module`` computes within the block, which gets what it computes otherwise."""
    own = module.__dict__.get("forward")
    plain = module.forward
    module.forward = forward
    try:
        yield plain
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
