"""Codes AD756 to AD768: merging adapters into the base's weights, in memory and on disk."""

from __future__ import annotations

from .code import Code
from .finding import Severity

MERGE_READ = Code(
    "AD388",
    "merge-read-elsewhere",
    Severity.ERROR,
    "The base also computes with a changed embedding's weight outside of the embedding.",
    "Leave the adapter unmerged. Modules in `modules_to_save` and `trainable_token_indices` of a "
    "LoRA act at both places, and can be merged.",
)
ADAPTERS_MERGED = Code(
    "AD756",
    "adapters-merged",
    Severity.ERROR,
    "This is not possible while adapters are merged into the base's weights.",
    "Call model.unmerge_adapter() first. To merge several adapters, name them together.",
)
MERGE_METHOD = Code(
    "AD757",
    "merge-not-possible",
    Severity.ERROR,
    "This adapter cannot be merged into the base's weights.",
    "Keep the adapter attached instead, which is exact.",
)
MERGE_WEIGHT = Code(
    "AD758",
    "merge-weight-unusable",
    Severity.ERROR,
    "A weight of the base cannot be changed by a merge.",
    "Keep the adapter attached, or merge into the unquantised checkpoint with `adapterdock merge`.",
)
MERGE_NOT_FINITE = Code(
    "AD759",
    "merge-not-finite",
    Severity.ERROR,
    "The merged weights would hold NaN or infinite values.",
    "Check the weights of the composition, or merge in bfloat16 or float32.",
)
MERGE_TIED = Code(
    "AD760",
    "merge-tied",
    Severity.ERROR,
    "The adapter changes one of several modules that share a weight, and they cannot be untied.",
    "Keep the adapter attached, or leave the shared module out of the adapter's targets.",
)
MERGE_NOTHING = Code(
    "AD761",
    "merge-nothing",
    Severity.ERROR,
    "There is nothing to merge.",
    "Name an adapter or a composition.",
)
MERGE_REREAD = Code(
    "AD762",
    "merge-cannot-reread",
    Severity.ERROR,
    "The base's own weights cannot be read again from its files.",
    'Merge with keep="memory". If the files have changed, restore them and unmerge again.',
)
MERGE_GROWN = Code(
    "AD763",
    "merge-grown",
    Severity.ERROR,
    "The adapter has an embedding or a head with another number of rows.",
    "Resize the base first (resize_token_embeddings, save_pretrained), and use the result as the "
    "base.",
)
MERGE_NOT_ON_DISK = Code(
    "AD764",
    "merge-not-on-disk",
    Severity.ERROR,
    "A weight that the adapter changes is not a tensor of the checkpoint.",
    "Load the model, call merge_and_unload(), and then save_pretrained().",
)
MERGE_FAILED = Code(
    "AD765",
    "merge-failed",
    Severity.ERROR,
    "Failed to merge. The model, or the folder, was not changed.",
    "Check the cause in the message. Free memory, then try again.",
)
MERGE_QUANTIZED = Code(
    "AD766",
    "merge-quantized-base",
    Severity.ERROR,
    "The base is quantised, or declared as quantised.",
    "Merge into the unquantised base, then quantise the result.",
)
MERGE_BUSY = Code(
    "AD768",
    "merge-busy",
    Severity.ERROR,
    "Calls are running on the model.",
    "Wait for the running calls to end, then merge.",
)
