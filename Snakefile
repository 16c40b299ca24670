# From raw text to a report: what is built, config/config.yaml says; the rules stand in flow order.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/0_check.smk"
include: "workflow/rules/1_vocab.smk"
include: "workflow/rules/2_instances.smk"
include: "workflow/rules/3_pretrain.smk"
include: "workflow/rules/4_average.smk"
include: "workflow/rules/5_finetune.smk"
include: "workflow/rules/6_evaluate.smk"
include: "workflow/rules/6_probe.smk"
include: "workflow/rules/7_report.smk"


# The recipes of config.yaml.
rule all:
    default_target: True
    input:
        "results/0_check/all.json",
        "results/7_report/report.html",


# Every recipe of config/zoo whose files can be had; the message names the others.
rule zoo:
    input:
        "results/0_check/zoo.json",
        "results/7_report/report_zoo.html",
    message:
        left_out("zoo")


# The small twins, recipes named *_mini.
rule zoo_mini:
    input:
        "results/0_check/zoo_mini.json",
        "results/7_report/report_zoo_mini.html",
    message:
        left_out("zoo_mini")
