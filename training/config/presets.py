"""Named sets of defaults, chosen with `preset=NAME`."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # Section 4.1 of the paper; docs/explanation/paper-recipe.md has the reason for each value that it leaves open
    "paper": {
        "model": {"weights": "imagenet", "mask_affine": True, "embedding_scale": 0.0625},
        "loss": {"triplet_features": "unit", "orthogonality": 1e-3, "orthogonality_form": "raw"},
        "optim": {"warmup": 0.0},
    },
    # Luo et al. 2019, "bag of tricks"
    "bot": {
        "model": {"bnneck": True},
        "sampler": {"identities": 16, "crops": 4},
        "loss": {"smoothing": 0.1},
        "optim": {
            "name": "adamw",
            "lr": 3.5e-4,
            "backbone_lr": 3.5e-4,
            "warmup": 0.08,
            "milestones": (0.33, 0.58),
        },
    },
    # what a few thousand iterations can use: light augmentation, one smooth descent
    "short": {
        "model": {"bnneck": True},
        "sampler": {"identities": 16, "crops": 4},
        "augment": {"erase": 0.25, "erase_area": (0.02, 0.2), "zoom": 0.05},
        "loss": {"smoothing": 0.1},
        "optim": {
            "name": "adamw",
            "lr": 1e-3,
            "backbone_lr": 3.5e-4,
            "schedule": "cosine",
            "warmup": 0.1,
        },
    },
    # from a run or other weights (model.weights): lower rates; the backbone waits until the new layers have settled
    "finetune": {
        "model": {"bnneck": True},
        "sampler": {"identities": 16, "crops": 4},
        "loss": {"smoothing": 0.1},
        "optim": {
            "name": "adamw",
            "lr": 5e-4,
            "backbone_lr": 2e-4,
            "schedule": "cosine",
            "warmup": 0.05,
            "freeze_backbone": 0.1,
            "iterations": 1_000,
        },
    },
    # fast-reid's SBS (He et al. 2020) under PAN, with AdamW and a moving average; docs/how-to/training.md
    "strong": {
        "model": {"weights": "imagenet", "bnneck": True, "gem": True},
        "sampler": {"identities": 16, "crops": 4},
        "augment": {"jitter": 0.5, "trivial": 0.1},
        "loss": {"smoothing": 0.1, "margin": None},
        "optim": {
            "name": "adamw",
            "clip_norm": None,
            "lr": 1e-3,
            "backbone_lr": 3.5e-4,
            "schedule": "cosine",
            "warmup": 0.1,
            "freeze_backbone": 0.05,
            "ema": 0.999,
        },
    },
}
