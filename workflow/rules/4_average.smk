rule average:
    input:
        averaged_models,
    output:
        "results/4_average/{recipe}.safetensors",
    log:
        "results/logs/average/{recipe}.log",
    benchmark:
        "results/benchmarks/average/{recipe}.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=0,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    shell:
        "exec python -m pipeline average --models {input:q} --out {output:q} > {log:q} 2>&1"
