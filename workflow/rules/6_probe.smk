def probe_of(wildcards):
    """Return the section that says what a recipe's model is asked."""
    return CATALOG.zoo[wildcards.recipe].probes[wildcards.probe]


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


def recipe_with_probes():
    """Return a pattern for {recipe} in paths with {probe}: it is followed by one of its own."""
    pairs = [
        rf"{re.escape(name)}(?=/(?:{any_of(recipe.probes)})\.json)"
        for name, recipe in CATALOG.zoo.items()
        if recipe.probes
    ]
    return "|".join(pairs) or "(?!)"


# Looks into a model: what is asked, recipes say under `probes`.
rule probe:
    input:
        unpack(probed_files),
    output:
        rows="results/6_probe/{recipe}/{probe}.jsonl",
        books="results/6_probe/{recipe}/{probe}.json",
    log:
        "results/logs/probe/{recipe}/{probe}.log",
    benchmark:
        "results/benchmarks/probe/{recipe}/{probe}.tsv"
    wildcard_constraints:
        recipe=recipe_with_probes(),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    params:
        name=lambda wildcards: probe_of(wildcards).probe.name,
        spec=spec(CATALOG.probe_spec, "recipe", "probe"),
        text=probed_text,
    shell:
        "exec python -m pipeline probe {params.name:q} --spec {params.spec:q}"
        " --model {input.model:q} --vocab {input.vocab:q} {params.text:q} --out {output.rows:q}"
        " --books {output.books:q} > {log:q} 2>&1"
