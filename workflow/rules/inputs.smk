# What jobs read, from the names in their wildcards.


def source_texts(wildcards):
    """Return the data sets' parts that a corpus is made of."""
    sources = CATALOG.corpora[wildcards.corpus].sources
    return [part_file(source.dataset, source.part) for source in sources if source.dataset]


def part_file(dataset, part):
    """Return the file of a part of a data set."""
    return f"data/datasets/{dataset}/{part}.{'json' if is_span(dataset) else 'tsv'}"


def rows(part):
    """Return an input function: the part's rows of a job's data set."""
    return lambda wildcards: part_file(wildcards.dataset, part)


def vocabulary_texts(wildcards):
    """Return what a vocabulary is made from: corpora, or a published file."""
    built = CATALOG.vocabularies[wildcards.vocab].built
    if built is None:
        return f"data/vocabularies/{wildcards.vocab}.txt"
    return [f"data/corpora/{corpus}.txt" for corpus in built.corpora]


def vocabulary_origin(wildcards):
    """Return the flag that says which of both they are."""
    return "--corpus" if CATALOG.vocabularies[wildcards.vocab].built else "--import"


def job_group(wildcards):
    """Return which of an instance set's cluster jobs builds a shard."""
    job = int(wildcards.shard) % CATALOG.instances[wildcards.instances].jobs
    return f"instances_{wildcards.instances}_{job}"


def instance_inputs(wildcards):
    """Return vocabulary and corpora of an instance set."""
    section = CATALOG.instances[wildcards.instances]
    return {
        "vocab": f"results/1_vocab/{section.vocabulary}.txt",
        "corpora": [f"data/corpora/{corpus}.txt" for corpus in section.corpora],
    }


def shards(instances, pattern):
    """Return `pattern` for every shard of an instance set."""
    numbers = range(CATALOG.instances[instances].shards)
    return [f"results/2_instances/{instances}/{pattern.format(number)}" for number in numbers]


def vocab_of(wildcards):
    """Return the vocabulary of a recipe."""
    return f"results/1_vocab/{CATALOG.vocabulary_of(wildcards.recipe)}.txt"


def manifest_of(wildcards):
    """Return the manifest of what a recipe is trained on."""
    return f"results/2_instances/{CATALOG.zoo[wildcards.recipe].instances}/manifest.json"


def shards_of(wildcards):
    """Return the shards that a recipe is trained on."""
    return shards(CATALOG.zoo[wildcards.recipe].instances, "shard_{:05d}.arrow")


def initial_model(wildcards):
    """Return the model that a recipe's pre-training starts from, if any."""
    initial = CATALOG.zoo[wildcards.recipe].initial
    return f"results/4_average/{initial}.safetensors" if initial else []


def step_before(wildcards):
    """Return the step at which a segment starts."""
    return int(wildcards.step) - CATALOG.zoo[wildcards.recipe].optimization.checkpoint_steps


def checkpoint_before(wildcards):
    """Return the files that a segment starts from, none for the first."""
    step = step_before(wildcards)
    endings = ["safetensors", "optimizer.safetensors", "json"] if step else []
    return [f"results/3_pretrain/{wildcards.recipe}/step_{step:08d}.{end}" for end in endings]


def averaged_models(wildcards):
    """Return the models whose mean is a recipe's: its last checkpoints, or the imported one."""
    recipe = CATALOG.zoo[wildcards.recipe]
    if recipe.imported:
        return f"data/models/{wildcards.recipe}/model.safetensors"
    return [
        f"results/3_pretrain/{wildcards.recipe}/step_{step:08d}.safetensors"
        for step in recipe.averaged_steps
    ]


def pretrained_model(wildcards):
    """Return the model that fine-tuning starts from, none for a random start."""
    random = wildcards.start == "random"
    return [] if random else f"results/4_average/{wildcards.recipe}.safetensors"


def probed_files(wildcards):
    """Return the model that is asked, its vocabulary, and the corpus if one is read."""
    return {
        "model": f"results/4_average/{wildcards.recipe}.safetensors",
        "vocab": vocab_of(wildcards),
        "corpus": probed_corpus(wildcards),
    }


def probed_corpus(wildcards):
    """Return the corpus that a probe reads, if any."""
    corpus = probe_of(wildcards).corpus
    return f"data/corpora/{corpus}.txt" if corpus else []


def probed_text(wildcards):
    """Return the options that give a probe what it reads; a line may begin with a dash.

    Not a function of `input`: what Snakemake derives from that makes nothing stale.
    """
    corpus = probed_corpus(wildcards)
    lines = [f"--line={line}" for line in probe_of(wildcards).lines]
    return ["--in", corpus] if corpus else lines


def pretraining_texts(wildcards):
    """Return the corpora on which a model was pre-trained here, none for a random start."""
    corpora = [] if wildcards.start == "random" else CATALOG.corpora_of(wildcards.recipe)
    return [f"data/corpora/{corpus}.txt" for corpus in corpora]


def report_inputs(wildcards):
    """Return all that a report shows."""
    paths = []
    whole = PAGES[wildcards.page] == "all"
    runs = CATALOG.runs if whole else CATALOG.available_runs
    for name in CATALOG.selected(PAGES[wildcards.page]):
        recipe = CATALOG.zoo[name]
        paths += [f"results/3_pretrain/{name}/step_{step:08d}.json" for step in recipe.steps]
        if recipe.is_trained or recipe.imported:
            paths.append(f"results/4_average/{name}.safetensors")
        for run in runs(name):
            folder = f"results/6_evaluate/{run.recipe}/{run.dataset}"
            paths.append(f"{folder}/{run.start}_seed_{run.seed}.json")
        for probe in recipe.probes if whole else CATALOG.available_probes(name):
            paths += [f"results/6_probe/{name}/{probe}.{end}" for end in ("json", "jsonl")]
    return paths
