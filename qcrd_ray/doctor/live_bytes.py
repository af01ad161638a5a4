"""How many bytes a computation holds at once, counted without doing it.

The computation runs on fake tensors (`torch._subclasses.FakeTensorMode`): each operation makes its
result's shape and nothing else, also in the backward pass, so a model of billions is counted in
seconds on a laptop. :class:`LiveBytes` sees every storage when it is made and when it is freed.
What a kernel needs for itself is not seen. Attention is counted as on a CPU, whose kernel keeps no
matrix of scores where the mask has no gradient, as GPU kernels do not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qcrd_ray.method.prefix import EncodedInputs, EncoderStates, PromptCache, Prompts
from qcrd_ray.method.student import evaluating
from qcrd_ray.method.token_losses import CHUNK_LOGITS, chunked_losses


class LiveBytes(TorchDispatchMode):
    """Within the block, counts the bytes of all storages that are made and not yet freed.

    ``peak`` is the most at one moment. What existed before the block is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def keep(self, *tensors: Tensor) -> None:
        """Leave these out: they exist already."""
        for tensor in tensors:
            self._sizes[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def step_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """The most bytes that a forward and backward pass hold beside the weights of ``model``.

    Its new gradients are among them.
    """
    counted = LiveBytes()
    counted.keep(*model.parameters(), *model.buffers())
    with counted:
        loss().backward()
    return counted.peak


def student_pass(
    student: Any,
    *,
    questions: int,
    candidates: int,
    input_tokens: int,
    label_tokens: int,
    target_tokens: int,
) -> Callable[[], Tensor]:
    """The passes of :class:`qcrd_ray.method.student.StudentStep`, all texts at full length.

    Each question has two inputs, a label, ``candidates`` that are scored without gradient, and two
    of them that are run with it. No value is looked at, so it works on fake tensors.
    """

    def loss() -> Tensor:
        inputs = _encoded(student, torch.zeros(2 * questions, input_tokens, dtype=torch.long))
        total = _losses(inputs, rows=questions, tokens=label_tokens).sum()
        if candidates:
            with torch.no_grad(), evaluating(student):
                _losses(inputs, rows=questions * candidates, tokens=target_tokens)
            total = total + _losses(inputs, rows=2 * questions, tokens=target_tokens).sum()
        return total

    return loss


def _encoded(student: Any, inputs: Tensor) -> EncodedInputs:
    mask = torch.ones_like(inputs)
    if student.config.is_encoder_decoder:
        return EncoderStates(student, inputs, mask)
    # made by hand: Prompts.of looks for each prompt's last token
    cache = PromptCache.__new__(PromptCache)
    cache.student = student
    cache.prompts = Prompts(inputs, mask, mask, inputs[:, -1], mask[:, -1], mask)
    checkpointing = student.is_gradient_checkpointing and student.training
    cache.past = None if checkpointing else cache._read_prompts()
    return cache


def _losses(inputs: EncodedInputs, *, rows: int, tokens: int) -> Tensor:
    """As :func:`qcrd_ray.method.token_losses.token_losses`, which tries the head on a value."""
    student: Any = inputs.student
    labels = torch.zeros(rows, tokens, dtype=torch.long)
    head, chunk = student.get_output_embeddings(), CHUNK_LOGITS
    size = max(1, chunk // student.config.get_text_config().vocab_size)
    plain = head.forward
    head.forward = lambda hidden: chunked_losses(hidden, plain, labels, tokens=size)
    try:
        return inputs.logits(labels, torch.zeros(rows, dtype=torch.long))
    finally:
        del head.forward
