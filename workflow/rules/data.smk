# What comes from elsewhere: fetched, checked by digest, cut into parts, and kept in data/.
rule fetch:
    input:
        source_texts,
    output:
        text="data/corpora/{corpus}.txt",
        ledger="data/corpora/{corpus}.ledger.json",
    log:
        "results/logs/fetch/corpora/{corpus}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=spec(CATALOG.corpus_spec, "corpus"),
    shell:
        "exec python -m pipeline fetch --spec {params.spec:q} --out {output.text:q} > {log:q} 2>&1"


rule fetch_dataset:
    output:
        train="data/datasets/{dataset}/train.tsv",
        dev="data/datasets/{dataset}/dev.tsv",
        test="data/datasets/{dataset}/test.tsv",
        ledger="data/datasets/{dataset}/ledger.json",
    log:
        "results/logs/fetch/datasets/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(dataset for dataset in CATALOG.datasets if not is_span(dataset)),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=spec(CATALOG.dataset_spec, "dataset"),
        out=subpath(output.train, parent=True),
    shell:
        "exec python -m pipeline fetch --spec {params.spec:q} --out {params.out:q} > {log:q} 2>&1"


# Questions on passages come as SQuAD-style JSON.
use rule fetch_dataset as fetch_spans with:
    output:
        train="data/datasets/{dataset}/train.json",
        dev="data/datasets/{dataset}/dev.json",
        test="data/datasets/{dataset}/test.json",
        ledger="data/datasets/{dataset}/ledger.json",
    wildcard_constraints:
        dataset=any_of(filter(is_span, CATALOG.datasets)),


rule fetch_vocabulary:
    output:
        tokens="data/vocabularies/{vocab}.txt",
        ledger="data/vocabularies/{vocab}.ledger.json",
    log:
        "results/logs/fetch/vocabularies/{vocab}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=spec(CATALOG.vocabulary_source, "vocab"),
    shell:
        "exec python -m pipeline fetch --spec {params.spec:q} --out {output.tokens:q}"
        " > {log:q} 2>&1"


# A model from elsewhere. Where it was found makes nothing stale, so that is no param.
rule convert:
    input:
        vocab=vocab_of,
    output:
        model="data/models/{recipe}/model.safetensors",
        vocab="data/models/{recipe}/vocab.txt",
        architecture="data/models/{recipe}/architecture.yaml",
    log:
        "results/logs/convert/{recipe}.log",
    wildcard_constraints:
        recipe=any_of(recipe for recipe in CATALOG.zoo if CATALOG.zoo[recipe].imported),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        source=lambda wildcards: str(
            CATALOG.place(CATALOG.zoo[wildcards.recipe].imported.source.path)
        ),
    params:
        format=lambda wildcards: CATALOG.zoo[wildcards.recipe].imported.converter,
        spec=spec(CATALOG.convert_spec, "recipe"),
        out=subpath(output.model, parent=True),
    shell:
        "exec python -m pipeline convert --spec {params.spec:q} --from {params.format:q}"
        " --to native --in {resources.source:q} --vocab {input.vocab:q} --out {params.out:q}"
        " > {log:q} 2>&1"
