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
