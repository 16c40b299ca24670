rule report:
    input:
        report_inputs,
        figures=FIGURES,
        speeds=SPEEDS,
    output:
        tables="results/7_report/{page}.md",
        figures="results/7_report/{page}.json",
        page=report(
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
        spec=lambda wildcards: canonical_json(
            CATALOG.report_spec(CATALOG.rows_of(PAGES[wildcards.page]))
        ),
        results=subpath(output.page, ancestor=2),
    shell:
        "exec python -m pipeline report --spec {params.spec:q} --results {params.results:q}"
        " --figures {input.figures:q} --speeds {input.speeds:q}"
        " --out {output.page:q} --markdown {output.tables:q} --json {output.figures:q}"
        " > {log:q} 2>&1"
