# One job is one segment: from a checkpoint to the next. Resume points inside it stand in state/,
# which is no output: Snakemake removes the outputs of a failed job.
rule pretrain:
    input:
        before=checkpoint_before,
        initial=initial_model,
        manifest=manifest_of,
        shards=shards_of,
        vocab=vocab_of,
    output:
        weights="results/3_pretrain/{recipe}/step_{step}.safetensors",
        optimizer=temp("results/3_pretrain/{recipe}/step_{step}.optimizer.safetensors"),
        record="results/3_pretrain/{recipe}/step_{step}.json",
    log:
        "results/logs/pretrain/{recipe}/step_{step}.log",
    benchmark:
        "results/benchmarks/pretrain/{recipe}/step_{step}.tsv"
    wildcard_constraints:
        recipe=recipe_at("averaged", "averaged_steps"),
    conda:
        "../../environment.yml"
    threads: RANKS if NODES == 1 else 1
    resources:
        **pretrain_resources(),
    params:
        spec=spec(CATALOG.pretrain_spec, "recipe"),
        instances=subpath(input.manifest, parent=True),
        initial=lambda wildcards, input: ["--init", input.initial] if input.initial else [],
        out=subpath(output.weights, parent=True),
        start=step_before,
        state="state/pretrain/{recipe}",
        log="results/logs/pretrain/{recipe}",
    shell:
        "exec {resources.launch} python -m pipeline pretrain --spec {params.spec:q}"
        " --instances {params.instances:q} --vocab {input.vocab:q} {params.initial:q}"
        " --from {params.start:q} --to {wildcards.step:q} --out {params.out:q}"
        " --state {params.state:q} --log {params.log:q} --set ranks={resources.ranks:q}"
        " --set stop_after_minutes={resources.runtime:q} > {log:q} 2>&1"


# Checkpoints on the way to those that are averaged.
use rule pretrain as pretrain_passing with:
    output:
        weights=temp("results/3_pretrain/{recipe}/step_{step}.safetensors"),
        optimizer=temp("results/3_pretrain/{recipe}/step_{step}.optimizer.safetensors"),
        record="results/3_pretrain/{recipe}/step_{step}.json",
    wildcard_constraints:
        recipe=recipe_at("averaged", "passing_steps"),


# Recipes with keep_checkpoints: all.
use rule pretrain as pretrain_keeping with:
    output:
        weights="results/3_pretrain/{recipe}/step_{step}.safetensors",
        optimizer="results/3_pretrain/{recipe}/step_{step}.optimizer.safetensors",
        record="results/3_pretrain/{recipe}/step_{step}.json",
    wildcard_constraints:
        recipe=recipe_at("all", "steps"),
