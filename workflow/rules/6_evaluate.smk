rule evaluate:
    input:
        model="results/5_finetune/{recipe}/{dataset}/{start}_seed_{seed}.safetensors",
        vocab=vocab_of,
        data=rows("test"),
        corpora=pretraining_texts,
    output:
        metrics="results/6_evaluate/{recipe}/{dataset}/{start}_seed_{seed}.json",
        predictions="results/6_evaluate/{recipe}/{dataset}/{start}_seed_{seed}.predictions.tsv",
    log:
        "results/logs/evaluate/{recipe}/{dataset}/{start}_seed_{seed}.log",
    benchmark:
        "results/benchmarks/evaluate/{recipe}/{dataset}/{start}_seed_{seed}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    params:
        corpora=lambda wildcards, input: ["--corpus", *input.corpora] if input.corpora else [],
    shell:
        "exec python -m pipeline evaluate --model {input.model:q} --vocab {input.vocab:q}"
        " --data {input.data:q} {params.corpora:q} --out {output.metrics:q}"
        " --predictions {output.predictions:q}"
        " > {log:q} 2>&1"
