"""A frozen base whose decoder layers lie in parts in the processes of a run. Each keeps its part of every layer, and
all put a layer together for the time in which they compute it. The adapter stays whole everywhere.

Knows torch's FSDP and models of transformers: no row, no loss and no run.
"""

from itertools import chain

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from glmstudio.models.base import Base
from glmstudio.models.transformers_internals import decoder_layers


def shard(base: Base, processes: int) -> None:
    """Cuts the base's layers, with an adapter on them or without, and brings what stays whole to the base's device.

    Every process of the run calls it, and from then on all of them make the same number of passes.
    """
    mesh = init_device_mesh(base.device.type, (processes,))
    for layer in decoder_layers(base.model):
        trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        # Apart again behind every pass: saving the adapter takes the layers of the first process apart, and only those.
        # It would then wait for others that still have theirs together.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    for tensor in chain(base.model.parameters(), base.model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(base.device)
