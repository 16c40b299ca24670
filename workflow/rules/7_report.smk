rule report:
    input:
        report_inputs,
    output:
        report(
            "results/7_report/{page}.html",
            caption="../report/report.rst",
            category="Report",
            labels={"page": "{page}"},
        ),
    log:
        "results/logs/report/{page}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: canonical_json(CATALOG.report_spec(rows_of(PAGES[wildcards.page]))),
        results=subpath(output[0], ancestor=2),
    shell:
        "exec python -m pipeline report --spec {params.spec:q} --results {params.results:q}"
        " --out {output:q} > {log:q} 2>&1"
