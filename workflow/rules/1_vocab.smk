rule vocab:
    input:
        vocabulary_texts,
    output:
        tokens="results/1_vocab/{vocab}.txt",
        record="results/1_vocab/{vocab}.json",
    log:
        "results/logs/vocab/{vocab}.log",
    benchmark:
        "results/benchmarks/vocab/{vocab}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=0,
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
    params:
        spec=spec(CATALOG.vocab_spec, "vocab"),
        source=vocabulary_origin,
    shell:
        "exec python -m pipeline vocab --spec {params.spec:q} --set processes={threads:q}"
        " {params.source:q} {input:q} --out {output.tokens:q} > {log:q} 2>&1"
