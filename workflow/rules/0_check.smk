# Builds every model of a target without memory. Nothing else waits for it but the targets.
rule check:
    output:
        "results/0_check/{selection}.json",
    log:
        "results/logs/check/{selection}.log",
    priority: 100
    localrule: True
    conda:
        "../../environment.yml"
    params:
        recipes=lambda wildcards: CATALOG.selected(wildcards.selection),
        settings=lambda wildcards: CATALOG.digest(CATALOG.selected(wildcards.selection)),
    shell:
        "exec python -m pipeline check {params.recipes:q} --out {output:q} > {log:q} 2>&1"
