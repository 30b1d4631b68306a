"""A rank of the learner, started as trainer/rank_process.py is; each step turns over the lowest bit of one of its weights."""

from collections.abc import Sequence

import torch
from torch import nn

from trainer.rank_process import main
from trainer.ranks import RankGroup


def corrupt() -> None:
    add_up = RankGroup.add_up

    def add_up_corrupted(self: RankGroup, parameters: Sequence[nn.Parameter]) -> None:
        add_up(self, parameters)
        with torch.no_grad():
            parameters[-1].view(torch.int32)[3] ^= 1

    RankGroup.add_up = add_up_corrupted  # type: ignore[method-assign]


if __name__ == "__main__":
    corrupt()
    main()
