rule finetune:
    input:
        train=rows("train"),
        dev=rows("dev"),
        vocab=vocab_of,
        initial=pretrained_model,
    output:
        "results/5_finetune/{recipe}/{dataset}/{start}_seed_{seed}.safetensors",
    log:
        "results/logs/finetune/{recipe}/{dataset}/{start}_seed_{seed}.log",
    benchmark:
        "results/benchmarks/finetune/{recipe}/{dataset}/{start}_seed_{seed}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=time_limit(),
    params:
        spec=spec(CATALOG.finetune_spec, "recipe", "dataset", "start", "seed"),
        initial=lambda wildcards, input: ["--init", input.initial] if input.initial else [],
        state="state/finetune/{recipe}/{dataset}/{start}_seed_{seed}",
        log="results/logs/finetune/{recipe}/{dataset}/{start}_seed_{seed}",
    shell:
        "exec python -m pipeline finetune --spec {params.spec:q} --train {input.train:q}"
        " --dev {input.dev:q} --vocab {input.vocab:q} {params.initial:q} --out {output:q}"
        " --state {params.state:q} --log {params.log:q}"
        " --set stop_after_minutes={resources.runtime:q} > {log:q} 2>&1"
