"""A rank of the learner, started as trainer/rank_process.py is, that computes in float64."""

import torch

from trainer.policy import DTYPES
from trainer.rank_process import main

if __name__ == "__main__":
    DTYPES["float32"] = torch.float64
    main()
