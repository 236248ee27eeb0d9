"""Commands that train: `dptr pretrain | finetune | compare`."""

from commands.console import Json, RunCache, Split, Weights, command, finish, say
from commands.gather import (
    cached_tokens,
    frozen_tokens,
    image_tower,
    labelled_sets,
    tower_of,
    training_sets,
    unlabelled_sets,
)
from train.compare_options import CompareOptions
from train.finetune_options import FinetuneOptions
from train.pretrain_options import PretrainOptions


def _pretrain(options: PretrainOptions, as_json: Json = False) -> None:
    """Pre-train a decoder on cached memories; CLIP is not needed."""
    from train.pretrain import pretrain as learn

    done = learn(options, say)
    text = (
        f"run {options.out}: {done.steps:,} steps in {done.seconds:.1f} s ({done.words_per_second:,.0f} words/s); best "
        f"at step {done.best_step:,}: word accuracy {done.scores['word_accuracy']:.1%} on held-out words "
        f"({done.scores['ignoring_case']:.1%} ignoring case), character error {done.scores['character_error']:.1%}"
    )
    finish(text, vars(done), as_json)


def _finetune(
    options: FinetuneOptions,
    split: Split = "train",
    cache: RunCache = None,
    pretrained: Weights = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a recogniser on labelled word images: image encoder, FMU and pre-trained decoder."""
    from train.finetune import Material
    from train.finetune import finetune as learn
    from train.finetune_options import check

    check(options)
    space, tower = image_tower(options, cache, pretrained)
    training = training_sets(options, cache, split)
    watched = labelled_sets(options.val, split)
    unlabelled = unlabelled_sets(options.unlabelled, split)
    tokens = frozen_tokens(options, space, tower, [*(one for part in training for one in part), *watched])
    done = learn(options, Material(training, watched, space, tower, tokens, unlabelled), say)
    text = (
        f"run {options.out}: {done.steps:,} steps in {done.seconds:.1f} s ({done.crops_per_second:,.0f} word images/s, "
        f"waiting for them {done.waiting:.1%} of the time); best at step {done.best_step:,}: "
        f"word accuracy {done.scores['accuracy_36']:.1%} on letters and digits ignoring case, "
        f"{done.scores['word_accuracy']:.1%} on all characters"
    )
    finish(text, vars(done), as_json)


def _compare(
    options: CompareOptions, split: Split = "train", pretrained: Weights = None, as_json: Json = False
) -> None:
    """Compare perturbations: pre-train with each from one cache, several times, and see which reads better."""
    from cache.space import space_with
    from train.compare import Pictures
    from train.compare import compare as run_all
    from train.compare_options import check
    from train.comparison import markdown, to_dict

    check(options)
    pictures = None
    if options.data:
        banks = [options.bank] if options.bank else []
        space = space_with(options.cache, options.space, options.corpus, banks, say)
        data, training = labelled_sets(options.data, split), labelled_sets(options.train, split)
        tower = tower_of(space, None, pretrained)
        tokens = cached_tokens(space, tower, [*data, *training], options.device)
        pictures = Pictures(space, tower, tokens, data, training)
    found = run_all(options, pictures, say)
    legend = "mean ± standard deviation; gain over the first, * if its 95 % interval leaves out zero"
    text = f"{markdown(found)}\n\n{legend}\n{options.out / 'table.md'}, {options.out / 'plot.png'}"
    finish(text, to_dict(found), as_json)


pretrain = command(PretrainOptions, _pretrain)
finetune = command(FinetuneOptions, _finetune)
compare = command(CompareOptions, _compare)
