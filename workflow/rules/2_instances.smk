# One job builds one shard; on a cluster, `jobs` of an instance set says how many run as one.
rule instances:
    input:
        unpack(instance_inputs),
    output:
        rows="results/2_instances/{instances}/shard_{shard}.arrow",
        held_out="results/2_instances/{instances}/held_out_{shard}.arrow",
        record="results/2_instances/{instances}/shard_{shard}.json",
    log:
        "results/logs/instances/{instances}/shard_{shard}.log",
    benchmark:
        "results/benchmarks/instances/{instances}/shard_{shard}.tsv"
    group:
        job_group
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
    params:
        spec=spec(CATALOG.instances_spec, "instances"),
        out=subpath(output.rows, parent=True),
    shell:
        "exec python -m pipeline instances --spec {params.spec:q} --corpus {input.corpora:q}"
        " --vocab {input.vocab:q} --out {params.out:q} --shards {wildcards.shard:q}"
        " > {log:q} 2>&1"


rule instances_join:
    input:
        unpack(instance_inputs),
        rows=lambda wildcards: shards(wildcards.instances, "shard_{:05d}.arrow"),
        held_out=lambda wildcards: shards(wildcards.instances, "held_out_{:05d}.arrow"),
        records=lambda wildcards: shards(wildcards.instances, "shard_{:05d}.json"),
    output:
        "results/2_instances/{instances}/manifest.json",
    log:
        "results/logs/instances/{instances}/join.log",
    benchmark:
        "results/benchmarks/instances/{instances}/join.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=spec(CATALOG.instances_spec, "instances"),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m pipeline instances --spec {params.spec:q} --corpus {input.corpora:q}"
        " --vocab {input.vocab:q} --out {params.out:q} --join > {log:q} 2>&1"
