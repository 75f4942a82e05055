"""Messages for unknown names, with the nearest known name."""

import difflib
from collections.abc import Sequence
from typing import TypeVar

from training.precision import full_precision_name

Name = TypeVar("Name", bound=str)

# what other projects call a setting
SYNONYMS = {
    "accumulate_steps": "optim.accumulate",
    "accumulate_grad_batches": "optim.accumulate",
    "amp": "precision",
    "arch": "model.variant",
    "backbone": "model.depth",
    "batch_size": "sampler.identities",
    "dataset": "data.path",
    "dtype": "precision",
    "epochs": "optim.iterations",
    "grad_clip": "optim.clip_norm",
    "label_smoothing": "loss.smoothing",
    "color_jitter": "augment.jitter",
    "auto_augment": "augment.trivial",
    "learning_rate": "optim.lr",
    "max_steps": "optim.iterations",
    "num_instances": "sampler.crops",
    "num_workers": "data.decode_threads",
    "optimizer": "optim.name",
    "patience": "early_stop",
    "pretrained": "model.weights",
    "random_erasing": "augment.erase",
    "scheduler": "optim.schedule",
    "steps": "optim.iterations",
    "wd": "optim.weight_decay",
    "workers": "data.decode_threads",
}


def unknown_name(name: str, known: Sequence[str]) -> str:
    """A message that a name is unknown, with the nearest of the known ones."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"{name} is unknown; " + (f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}")


def parse_precision(text: str, known: Sequence[Name]) -> Name:
    """`fp16` -> `float16`. Raises ValueError if it is not one of the known precisions."""
    full_name = full_precision_name(text)
    for name in known:
        if name == full_name:
            return name
    raise ValueError(unknown_name(full_name, known))


def unknown_setting(name: str, siblings: Sequence[str], settings: Sequence[str]) -> str:
    """A message that a dotted setting is unknown, with the setting that was probably meant.

    `siblings` are the names of its group, `settings` all dotted names. In this order: a synonym, the same last word in
    another group, a similar name in the group, a similar name anywhere.
    """
    group, _, last = name.rpartition(".")
    prefix = f"{group}." if group else ""
    near = [
        *([SYNONYMS[last]] if last in SYNONYMS else []),
        *(setting for setting in settings if setting.rpartition(".")[2] == last),
        *(f"{prefix}{sibling}" for sibling in difflib.get_close_matches(last, siblings, n=1, cutoff=0.6)),
        *difflib.get_close_matches(name, settings, n=1, cutoff=0.6),
    ]
    if near:
        return f"{name} is unknown; did you mean {near[0]}?"
    return f"{name} is unknown; {group or 'the configuration'} has {', '.join(siblings)}; see `pan-train settings`"
