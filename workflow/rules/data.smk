# What comes from elsewhere: fetched, checked by digest, cut into parts, and kept in data/.
rule fetch:
    input:
        source_texts,
    output:
        text="data/corpora/{corpus}.txt",
        ledger="data/corpora/{corpus}.ledger.json",
    log:
        "results/logs/fetch/{corpus}.log",
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
        "results/logs/fetch/{dataset}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=spec(CATALOG.dataset_spec, "dataset"),
        out=subpath(output.train, parent=True),
    shell:
        "exec python -m pipeline fetch --spec {params.spec:q} --out {params.out:q} > {log:q} 2>&1"


rule fetch_vocabulary:
    output:
        "data/vocabularies/{vocab}.txt",
    log:
        "results/logs/fetch/{vocab}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=spec(CATALOG.vocabulary_source, "vocab"),
    shell:
        "exec python -m pipeline fetch --spec {params.spec:q} --out {output:q} > {log:q} 2>&1"
