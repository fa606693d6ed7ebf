"""Train as ``train.py`` does and write what became of the backbone: what a test of several processes can't see.

torchrun two_processes.py CONFIG.yaml [section.field=value ...]
"""

import json
import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule

from training.settings import load
from training.trainer import run as running
from training.trainer.processes import Processes

torch.set_num_threads(1)
settings = load(Path(sys.argv[1]), sys.argv[2:])
processes = Processes("cpu")
made = []


class Watched(running.Run):
    def __init__(self, *args):
        super().__init__(*args)
        made.append(self)


running.Run = Watched
running.train(settings, processes, "plain", show_progress=False)
transformer = made[0].adapter.transformer
frozen = [p for p in transformer.blocks.parameters() if not p.requires_grad]
told = {
    "processes": processes.count,
    "blocks": len(transformer.blocks),
    "sharded_blocks": sum(isinstance(block, FSDPModule) for block in transformer.blocks),
    "frozen_numbers_here": sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in frozen),
}
if processes.is_first:
    (settings.run.folder / "told.json").write_text(json.dumps(told), encoding="utf-8")
processes.close()
