"""Codes AD756 to AD766 and AD768: merging adapters into the base's weights, live and on disk."""

from __future__ import annotations

from .code import Code
from .finding import Severity

ADAPTERS_MERGED = Code(
    "AD756",
    "adapters-merged",
    Severity.ERROR,
    "This cannot be done while adapters are merged into the base's weights.",
    "A merged adapter is in the weights already: activating it would count it twice, and the base "
    "alone cannot answer. What is attached or removed meanwhile would be compared with weights "
    "that are not the base's. An adapter whose delta is made of the base's output (DoRA, IA3 and "
    "others) cannot act beside a merged one at the same module either.",
    "model.merge_adapter('tone'); model.set_adapter('tone')",
    "call model.unmerge_adapter() first; to have several merged, name them together",
)
MERGE_METHOD = Code(
    "AD757",
    "merge-not-possible",
    Severity.ERROR,
    "This adapter cannot be written into the base's weights.",
    "A merge needs a delta of a weight that gives the same output as the live adapter. Prompt "
    "methods have none. Neither has a LoRA on a grouped or dilated convolution, an OFT on a kernel "
    "larger than one pixel, anything on an embedding with max_norm, nor a trained bias of a module "
    "that has none. The same goes for a delta that is made of what the base does at a module "
    "(DoRA, IA3, OFT, trained tokens) where another adapter of the merge replaces that module, or "
    "changes a parameter of it. An aLoRA acts on some tokens only. A method that attaches through "
    "PEFT is merged as PEFT merges it, if that gives the layer's own answer.",
    "model.merge_adapter('prompt')   # prompt tuning",
    "keep the adapter attached instead; live it is exact",
)
MERGE_WEIGHT = Code(
    "AD758",
    "merge-weight-unusable",
    Severity.ERROR,
    "A weight of the base cannot be merged into.",
    "A quantised weight would have to be quantised anew, with an error that nobody stated; one "
    "that accelerate keeps offloaded is not in memory between its uses; a parametrized one is "
    "computed. Merging needs a plain float64, float32, float16 or bfloat16 weight in memory, or, "
    "for `adapterdock merge`, in the checkpoint.",
    'model.merge_adapter() on a base loaded in 4 bits, or with device_map: {"": disk}',
    "keep the adapter attached, or merge into the unquantised checkpoint with `adapterdock merge`",
)
MERGE_NOT_FINITE = Code(
    "AD759",
    "merge-not-finite",
    Severity.ERROR,
    "The merged weights would hold NaN or infinite values.",
    "`safe_merge=True` (`--safe`) looks at every merged weight before anything is touched. float16 "
    "ends at 65504: a sum beyond that becomes infinite.",
    "model.merge_adapter({'tone': 1e6}, safe_merge=True)   # a float16 base",
    "check the weights of the composition, or merge in bfloat16 or float32",
)
MERGE_TIED = Code(
    "AD760",
    "merge-tied",
    Severity.ERROR,
    "The adapter changes one of several modules that share a weight, and they cannot be parted.",
    "Live, the adapter acts on one module only; written into the shared weight it would change the "
    "others too. A head that is tied by `tie_word_embeddings` is given a weight of its own. Here "
    "that is not possible: the architecture always ties these weights, or computes something else "
    "where they are not tied (T5 and its relatives).",
    "a LoRA on `decoder.embed_tokens` of a T5",
    "keep the adapter attached, or leave the shared module out of the adapter's targets",
)
MERGE_NOTHING = Code(
    "AD761",
    "merge-nothing",
    Severity.ERROR,
    "There is nothing to merge.",
    "Without names the active adapters are merged (on the command line: what the manifest says is "
    "active). None is active, or the weights that were named are all zero.",
    "model.merge_adapter()   # before any set_adapter",
    "name an adapter or a composition",
)
MERGE_REREAD = Code(
    "AD762",
    "merge-cannot-reread",
    Severity.ERROR,
    "The base's own weights cannot be read again from its files.",
    'keep="reread" gives memory back: unmerging reads the weights from the files that the '
    "deployment was loaded from. That needs a base that adapterdock.load loaded, of which every "
    "merged weight is a tensor in those files, unchanged since. What is not certain is refused at "
    "the merge; where the files have changed since, the model stays merged.",
    'adapterdock.attach(model, manifest).merge_adapter(keep="reread")',
    'merge with keep="memory"; where the files have changed, restore them and unmerge again',
)
MERGE_GROWN = Code(
    "AD763",
    "merge-grown",
    Severity.ERROR,
    "The adapter brings an embedding or a head with another number of rows.",
    "Attached, such an adapter uses its own module. Written into the base it would change the "
    "vocabulary of the model and its config.",
    "an adapter trained after resize_token_embeddings",
    "resize the base first (resize_token_embeddings, save_pretrained), and use that as the base",
)
MERGE_NOT_ON_DISK = Code(
    "AD764",
    "merge-not-on-disk",
    Severity.ERROR,
    "A weight that the adapter changes is no tensor of the checkpoint.",
    "`adapterdock merge` writes every tensor back under the checkpoint's own name. Experts that "
    "transformers fuses when it loads are cut apart again. This parameter is made in a way that "
    "cannot be undone tensor by tensor (rows are interleaved, a stored projection is split), its "
    "delta needs all of it (DoRA, IA3), or its name in the checkpoint could not be told.",
    "a LoRA on `q_proj`, of an architecture whose checkpoints hold q, k and v as one tensor",
    "load the model, merge_and_unload() it there, and save_pretrained()",
)
MERGE_FAILED = Code(
    "AD765",
    "merge-failed",
    Severity.ERROR,
    "Merging broke off; the model, or the folder, is as it was before.",
    "Something that is not a property of the adapter went wrong, most often memory. New weights "
    "are computed before the first old one is exchanged, and a folder is written under another "
    "name first.",
    "out of memory while the weights are computed",
    "see the cause in the message; free memory, then try again",
)
MERGE_QUANTIZED = Code(
    "AD766",
    "merge-quantized-base",
    Severity.ERROR,
    "The base is quantised, or declared to be.",
    "Merged weights would have to be quantised anew, with an error that nobody stated.",
    "adapterdock merge   # with base.quantization in the manifest",
    "merge into the unquantised base, then quantise the result",
)
MERGE_BUSY = Code(
    "AD768",
    "merge-busy",
    Severity.ERROR,
    "Calls are running through the model at this moment.",
    "Exchanging weights under a running call would give it an answer that is half of each.",
    "model.merge_adapter() while another thread generates",
    "wait for the running calls to end, then merge",
)
MERGE_READ = Code(
    "AD388",
    "merge-read-elsewhere",
    Severity.ERROR,
    "The base computes with a changed embedding's weight outside of the embedding too.",
    "What LoRA adds at an embedding acts where the embedding is called, as in PEFT. Some heads "
    "multiply with the embedding's weight and do not call it (DeBERTa with `legacy: false`, "
    "Perceiver). In the weight, the change would act there too, and the merged model would answer "
    "otherwise than the adapter does. The base was run on a few tokens to see it.",
    'model.merge_adapter("a") of a LoRA on `word_embeddings` of such a DeBERTa',
    "leave the adapter unmerged; `modules_to_save` and `trainable_token_indices` of a LoRA act at "
    "both places, and can be merged",
)
